import struct

from ferjax.training.event_file import Event, EventFile, SessionLog


def events(file):
  """The records of a file: length, its checksum, content, its checksum."""
  content, place = file.read_bytes(), 0
  while place < len(content):
    (length,) = struct.unpack_from("<Q", content, place)
    yield Event.FromString(content[place + 12 : place + 12 + length])
    place += 12 + length + 4


def test_values_are_in_the_file_at_once(tmp_path):
  writer = EventFile(tmp_path / "board", first_step=0)
  writer.write(3, {"train/loss": 0.5, "eval/map50": 0.25}, {"note": "text"})
  (file,) = (tmp_path / "board").iterdir()
  found = [(e.step, v.tag, v.simple_value) for e in events(file) for v in e.summary.value]
  assert found == [(3, "train/loss", 0.5), (3, "eval/map50", 0.25), (3, "note/text_summary", 0.0)]
  writer.close()


def test_a_resumed_run_hides_later_steps_and_overwrites_no_file(tmp_path, monkeypatch):
  monkeypatch.setattr("time.time", lambda: 1e9)
  for first_step in (0, 5):
    EventFile(tmp_path, first_step=first_step).close()
  files = sorted(tmp_path.iterdir())
  assert len(files) == 2
  starts = [e.step for f in files for e in events(f) if e.session_log.status == SessionLog.START]
  assert starts == [5]
