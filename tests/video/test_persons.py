import numpy as np

from ferjax.video.persons import MOST_TIMELINES, Persons


def test_the_clearest_portrait_is_kept():
  persons = Persons(("a", "b"))
  image = np.zeros((40, 40, 3), np.uint8)
  image[10:20, 10:20] = 200
  person = persons.add(1, 0.0, np.array([0.4, 0.6]), np.array([0.4, 0.6]))
  persons.keep_portrait(person, image, (0.0, 0.0, 10.0, 10.0), 0.5)
  persons.keep_portrait(person, image, (10.0, 10.0, 20.0, 15.0), 0.9)
  persons.keep_portrait(person, image, (0.0, 0.0, 10.0, 10.0), 0.8)
  assert person.portrait.shape == (48, 96, 3)
  assert person.portrait.min() == 200


def test_many_persons():
  """Few portraits are in memory, and those seen most are shown."""
  persons = Persons(("a",))
  scores, image = np.ones(1), np.zeros((10, 10, 3), np.uint8)
  for number in range(1, 201):
    for time in range(3 if number in (50, 150) else 1):
      person = persons.add(number, float(time), scores, scores)
      persons.keep_portrait(person, image, None, 0.5)
  everyone = persons.all()
  assert len(everyone) == 200
  assert sum(person.portrait is not None for person in everyone) <= 4 * MOST_TIMELINES
  shown = persons.longest()
  assert len(shown) == MOST_TIMELINES
  assert {50, 150} < {person.track for person in shown}
  assert shown == sorted(shown, key=lambda person: person.track)
