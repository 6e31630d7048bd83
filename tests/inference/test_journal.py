"""The journal of a run: every line is whole and is written once."""

import json
import multiprocessing
import os

import pytest

from ferjax.inference.journal import Journal

IMAGES = ["a", "b", "c"]
RUN = {"settings": (1, 2), "step": 3}


@pytest.fixture
def path(tmp_path):
  return tmp_path / "results.jsonl"


def _interrupted(path, *images):
  journal = Journal(path, RUN, IMAGES)
  for image in images:
    journal.add({"image": image})
  journal.close(finished=False)


def _lines(path):
  return [json.loads(line)["image"] for line in path.read_text().splitlines()]


def test_results_are_readable_at_once(path):
  journal = Journal(path, RUN, IMAGES)
  journal.add({"image": "a", "faces": [0.25]})
  assert path.read_text() == '{"image": "a", "faces": [0.25]}\n'
  assert list(journal.records()) == [{"image": "a", "faces": [0.25]}]
  journal.close(finished=True)
  assert os.listdir(path.parent) == [path.name]


def test_an_interrupted_run_goes_on_and_a_finished_one_does_not(path):
  _interrupted(path, "a", "b")
  journal = Journal(path, RUN, IMAGES)
  assert journal.done == 2
  journal.add({"image": "c"})
  journal.close(finished=True)
  assert _lines(path) == IMAGES
  journal = Journal(path, RUN, IMAGES)
  assert journal.done == 0
  journal.close(finished=True)
  assert _lines(path) == []


@pytest.mark.parametrize("length", range(1, len('{"image": "b", "x": 1}\n')))
def test_a_line_that_a_kill_cut_is_written_again(path, length):
  _interrupted(path, "a")
  with path.open("a") as file:
    file.write('{"image": "b", "x": 1}\n'[:length])
  journal = Journal(path, RUN, IMAGES)
  assert journal.done == 1
  journal.add({"image": "b"})
  journal.close(finished=False)
  assert _lines(path) == ["a", "b"]


def test_what_a_crash_of_the_system_leaves_is_cut_off(path):
  _interrupted(path, "a")
  with path.open("ab") as file:
    file.write(bytes(40) + b"\n[]\n{}\n")
  journal = Journal(path, RUN, IMAGES)
  assert journal.done == 1
  journal.close(finished=False)
  assert _lines(path) == ["a"]


def test_restart_replaces_the_results(path):
  _interrupted(path, "a", "b")
  journal = Journal(path, RUN, IMAGES, restart=True)
  assert journal.done == 0
  journal.close(finished=False)
  assert path.read_text() == ""


def test_a_run_without_results_is_replaced(path):
  _interrupted(path)
  journal = Journal(path, {"step": 4}, ["x"])
  journal.add({"image": "x"})
  journal.close(finished=False)
  with pytest.raises(ValueError, match="its step was 4, and is None now"):
    Journal(path, {}, ["x"])


@pytest.mark.parametrize(
  ("run", "images", "message"),
  [
    ({**RUN, "step": 4}, IMAGES, "its step was 3, and is 4 now; repeat its command to go on"),
    ({**RUN, "settings": [1]}, IMAGES, r"its settings was \[1, 2\], and is \[1\] now"),
    ({**RUN, "more": True}, IMAGES, "its more was None, and is True now"),
    (RUN, ["a", "d"], "its image 2 was b, and is d now"),
    (RUN, ["a"], "its image 2 was b, and is not given now; .*--restart, or name another --output"),
  ],
)
def test_another_run_destroys_nothing(path, run, images, message):
  _interrupted(path, "a", "b")
  with pytest.raises(ValueError, match=message):
    Journal(path, run, images)
  assert _lines(path) == ["a", "b"]


@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 100_000])
def test_a_damaged_description_of_the_run(path, content):
  _interrupted(path, "a")
  path.with_name("results.unfinished.json").write_text(content)
  with pytest.raises(ValueError, match=r"results.unfinished.json is damaged"):
    Journal(path, RUN, IMAGES)
  assert _lines(path) == ["a"]


def _open_and_wait(path, opened, end):
  journal = Journal(path, RUN, IMAGES)
  journal.add({"image": "a"})
  opened.set()
  end.wait()


def test_two_processes_do_not_write_the_same_results(path):
  pytest.importorskip("fcntl")
  context = multiprocessing.get_context("spawn")
  opened, end = context.Event(), context.Event()
  other = context.Process(target=_open_and_wait, args=(path, opened, end), daemon=True)
  other.start()
  assert opened.wait(60)
  with pytest.raises(ValueError, match="is being written by another run; wait for it"):
    Journal(path, RUN, IMAGES)
  other.kill()
  other.join()
  journal = Journal(path, RUN, IMAGES)  # the lock of a killed process is free
  assert journal.done == 1
  journal.close(finished=True)
