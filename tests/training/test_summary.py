import jax
import numpy as np

from ferjax.config import Config, ModelConfig, TrainConfig
from ferjax.data.datasets.entries import Entry
from ferjax.data.mixture import MixedSource
from ferjax.data.sources import ReleasedDetection, count_boxes
from ferjax.data.synthetic.faces import SyntheticFaces
from ferjax.data.synthetic.scenes import SyntheticScenes
from ferjax.expressions import UNLABELLED
from ferjax.training.phases import make_phases
from ferjax.training.sharding import make_mesh
from ferjax.training.summary import examples_left, summarise, summary_lines

BOX = (0.0, 0.0, 8.0, 8.0)
PARAMS = {"backbone": {"a": np.zeros((3, 4))}, "head": {"b": np.zeros(5), "c": np.float32(1)}}


def entries(*labels):
  return [
    Entry(f"list:{i}", str(i), f"{i}.jpg", "train", tuple(x), boxes=(BOX,) * len(x))
    for i, x in enumerate(labels)
  ]


def test_summary_by_hand():
  train = TrainConfig(
    epochs=5, batch_size=4, freeze="backbone", freeze_epochs=2, freeze_batch_size=8
  )
  config = Config(model=ModelConfig(name="fermam", size="nano"), train=train)
  faces = SyntheticFaces(1001, image_size=32, seed=0, class_names=("neutral", "anger"))
  scenes = SyntheticScenes(3, image_size=32, seed=0)
  phases = make_phases(train, 1001)
  sources = {"training": faces, "validation": scenes}
  found = summarise(config, phases, PARAMS, sources, make_mesh(2))
  assert found["parameters"] == 18
  assert found["frozen_parameters"] == 12
  assert found["data"]["training"]["classes"] == {"neutral": 501, "anger": 500}
  assert found["data"]["validation"] == {"records": 3}
  assert found["steps"] == 2 * 125 + 3 * 250
  assert (found["devices"], found["hosts"]) == (2, 1)
  lines = summary_lines(found, first_step=7)
  assert "  parameters  18, of which 12 are frozen at first" in lines
  assert "  training    1,001 records; classes: neutral 501, anger 500" in lines
  assert "  validation  3 records" in lines
  assert f"  devices     2 x {jax.devices()[0].device_kind}, hosts: 1" in lines
  assert "  steps       1,000, from step 7" in lines
  assert "  epochs      0..2: batches of 8, 125 an epoch, frozen: backbone" in lines
  assert "  epochs      2..5: batches of 4, 250 an epoch, frozen: none" in lines


def test_teachers_are_named():
  train = TrainConfig(epochs=1, teachers=("emonext-atto-ferplus", "runs/b"), teacher_weight=0.25)
  config = Config(model=ModelConfig(name="fermam"), train=train)
  found = summarise(config, make_phases(train, 16), PARAMS, {}, make_mesh(1))
  assert found["teachers"] == ["emonext-atto-ferplus", "runs/b"]
  line = "  teachers    emonext-atto-ferplus, runs/b; 0.25 of the targets"
  assert line in summary_lines(found, first_step=0)


def test_boxes_are_counted_by_class():
  some = entries([0, 1, 1], [UNLABELLED], [])
  assert count_boxes(some, 3) == [1, 2, 0]
  source = ReleasedDetection(some, ("a", "b", "c"))
  assert (source.box_counts, source.labelled_boxes) == ([1, 2, 0], 3)
  mixed = MixedSource([source, ReleasedDetection(entries([2]), ("a", "b", "c"))], [], ["x", "y"])
  assert mixed.box_counts == [1, 2, 1]
  scenes = SyntheticScenes(3, image_size=32, seed=0, class_names=("neutral", "anger"))
  mixed = MixedSource([scenes, scenes], [], ["x", "y"])
  assert mixed.box_counts is None


def test_examples_left():
  train = TrainConfig(epochs=3, batch_size=4, freeze="b", freeze_epochs=1, freeze_batch_size=8)
  phases = make_phases(train, 16)  # two steps of 8, then eight of 4
  assert [examples_left(phases, step) for step in (0, 1, 2, 5, 10)] == [48, 40, 32, 20, 0]
