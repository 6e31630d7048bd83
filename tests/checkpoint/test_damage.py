import json
import shutil

import pytest
from etils import epath

from ferjax.checkpoint import Checkpoints, DamagedCheckpointError, open_checkpoint
from ferjax.checkpoint.damage import problem_of, set_damaged_aside

# After an error, orbax leaves reads behind that fail in other threads.
pytestmark = pytest.mark.filterwarnings(
  "ignore:Exception ignored:pytest.PytestUnraisableExceptionWarning"
)
# These hold what is read. The others are marks of orbax, and parts that were merged into `d`.
FILES = (
  "meta/metadata",
  "metrics/metrics",
  "data/process_0-of-1.json",
  *(
    f"{item}/{name}" for item in ("train", "variables") for name in ("_METADATA", "manifest.ocdbt")
  ),
)


def test_every_damaged_file_is_found(saved):
  saved.save(1, 0.5)
  folder = saved.folder / "1"
  assert problem_of(folder, whole=True) == ""
  values = [next((folder / item / "d").iterdir()) for item in ("train", "variables")]
  for file in [*(folder / name for name in FILES), *values]:
    content = file.read_bytes()
    for part in (b"", content[: len(content) // 2]):
      file.write_bytes(part)
      assert problem_of(folder, whole=True), file
    file.unlink()
    if file.parent.name != "metrics":  # a checkpoint need not have been evaluated
      assert problem_of(folder, whole=True), file
    file.write_bytes(content)
  assert problem_of(folder, whole=True) == ""


@pytest.mark.parametrize("item", ["variables", "train", "data", "meta"])
def test_a_vanished_item_is_found(saved, item):
  saved.save(1, 0.5)
  shutil.rmtree(saved.folder / "1" / item)
  problem = problem_of(saved.folder / "1", whole=True)
  assert problem
  assert "\n" not in problem


def truncate(saved, step, name="train/manifest.ocdbt"):
  (saved.folder / str(step) / name).write_bytes(b"")


def test_the_newest_good_one_is_used(saved, saved_in, tmp_path, caplog):
  saved.save_all([0.5, 0.1, 0.2])
  truncate(saved, 3)
  again = saved_in(tmp_path)
  assert again.checkpoints.latest_step == 2
  assert again.checkpoints.best_score == 0.5
  assert (tmp_path / "damaged/3/meta/metadata").exists()
  assert "step 3 is damaged" in caplog.text
  assert "newest good one is of step 2" in caplog.text
  again.save(3, 0.9)
  assert again.steps() == [2, 3]
  truncate(again, 3, "metrics/metrics")
  assert saved_in(tmp_path).checkpoints.latest_step == 2
  assert sorted(folder.name for folder in (tmp_path / "damaged").iterdir()) == ["3", "3.1"]


def test_nothing_is_moved_if_none_is_good(saved, saved_in, tmp_path):
  saved.save_all([0.5, 0.1])
  for step in (1, 2):
    truncate(saved, step)
  with pytest.raises(DamagedCheckpointError, match=r"every checkpoint in .*Restore one of them"):
    saved_in(tmp_path)
  assert saved.steps() == [1, 2]
  assert not (tmp_path / "damaged").exists()


def test_an_imported_network_and_an_empty_folder_are_not_damaged(tmp_path, saved):
  set_damaged_aside(epath.Path(tmp_path / "missing" / "checkpoints"))
  checkpoints = Checkpoints(tmp_path / "imported", keep=1, metric="")
  checkpoints.save(1, variables=saved.trees(1)[0], meta=saved.meta | {"config": {}})
  checkpoints.close()
  Checkpoints(tmp_path / "imported", keep=1, metric="").close()
  assert open_checkpoint(tmp_path / "imported").step == 1


def test_a_newer_format_is_not_damage(saved, saved_in, tmp_path):
  saved.save(1, 0.5)
  file = saved.folder / "1/meta/metadata"
  file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 99}))
  assert saved_in(tmp_path).checkpoints.latest_step == 1
  with pytest.raises(ValueError, match="its format is 99"):
    open_checkpoint(tmp_path)
