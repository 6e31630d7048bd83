import numpy as np
import pytest

from ferjax.video.tracking import Tracker, appearance

# Plain colours are as different as faces of different persons never are alike.
RED, GREEN, BLUE = (200, 40, 40), (40, 200, 40), (40, 40, 200)


def _frame(*faces):
  """A grey frame of 200x100 with squares of 40 pixels in a colour, with a darker half."""
  image = np.full((100, 200, 3), 90, np.uint8)
  boxes = []
  for colour, left, top in faces:
    image[top : top + 40, left : left + 40] = colour
    image[top + 20 : top + 40, left : left + 40] //= 2
    boxes.append((float(left), float(top), left + 40.0, top + 40.0))
  return image, boxes


@pytest.fixture
def tracker():
  return Tracker()


def test_faces_that_move_and_change_their_order(tracker):
  for step in range(12):
    faces = [(RED, 10 + 8 * step, 10), (GREEN, 150 - 8 * step, 55)]
    image, boxes = _frame(*(faces if step % 2 else faces[::-1]))
    tracks = tracker.update(0.04 * step, image, boxes)
    # The first frame has the green face first.
    assert tracks == ([2, 1] if step % 2 else [1, 2])


def test_a_cut_to_another_face_at_the_same_place(tracker):
  assert tracker.update(0.0, *_frame((RED, 20, 20))) == [1]
  assert tracker.update(0.1, *_frame((BLUE, 20, 20))) == [2]
  assert tracker.update(0.2, *_frame((RED, 20, 20))) == [1]


def test_a_lost_face_is_known_again_elsewhere(tracker):
  tracker.update(0.0, *_frame((RED, 20, 20), (GREEN, 100, 20)))
  assert tracker.update(0.1, *_frame((GREEN, 100, 20))) == [2]
  assert tracker.update(0.2, *_frame()) == []
  assert tracker.update(9.0, *_frame((BLUE, 100, 20), (RED, 150, 50))) == [3, 1]


def test_a_face_is_not_remembered_for_ever(tracker):
  tracker.update(0.0, *_frame((RED, 20, 20)))
  assert tracker.update(61.0, *_frame((RED, 20, 20))) == [2]


def test_two_faces_never_share_a_track(tracker):
  tracker.update(0.0, *_frame((RED, 20, 20)))
  assert sorted(tracker.update(0.1, *_frame((RED, 24, 20), (RED, 120, 20)))) == [1, 2]


def test_similarity(portraits, place):
  frames = [place((face, (20, 20))) for face in portraits]
  box = (32.0, 30.0, 56.0, 60.0)
  looks = [appearance(frame, box) for frame in frames]
  moved = appearance(place((portraits[0], (60, 33))), (72.0, 43.0, 96.0, 73.0))
  assert np.linalg.norm(looks[0]) == pytest.approx(1)
  assert looks[0] @ moved == pytest.approx(1)
  darker = (frames[0] * 0.95).astype(np.uint8)
  assert looks[0] @ appearance(darker, box) > max(looks[0] @ other for other in looks[1:])


def test_boxes_at_the_edge():
  image, _ = _frame()
  for box in ((-30.0, -30.0, -5.0, -5.0), (190.0, 90.0, 230.0, 130.0), (5.0, 5.0, 5.0, 5.0)):
    assert np.isfinite(appearance(image, box)).all()
