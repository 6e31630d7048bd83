"""With classifiers of a few parameters; predictions of `ferjax.inference` are the oracle."""

import chex
import jax
import numpy as np
import pytest

from ferjax.checkpoint import load_variables
from ferjax.config import (
  Config,
  DataConfig,
  EvalConfig,
  FaceAugmentConfig,
  ModelConfig,
  OptimizerConfig,
  TrainConfig,
)
from ferjax.data.synthetic.faces import SyntheticFaces
from ferjax.inference.classification import ExpressionClassifier
from ferjax.tasks.classification.task import ClassificationTask
from ferjax.trained import TrainedNetwork
from ferjax.training.distillation import open_teachers
from ferjax.training.inputs import TrainingData
from ferjax.training.loop import Trainer
from ferjax.training.sharding import make_mesh
from ferjax.training.state import init_variables
from ferjax.weights import save_weights

CLASSES = ("happiness", "anger", "surprise")
pytestmark = pytest.mark.usefixtures("small")


class Trained(TrainedNetwork):
  """A classifier with random values."""

  name = "trained"

  def __init__(self, network, seed, classes=CLASSES, *, grey=True, size=32):
    self.meta = {
      "model": {"name": "small"},
      "task": "classification",
      "class_names": list(classes),
      "image_size": size,
      "mean": [0.5, 0.4, 0.3],
      "std": [0.2, 0.25, 0.3],
      "grey": grey,
      "resize": 0,
      "class_prior": [],
      "selection": "",
      "step": 1,
      "epoch": 1.0,
      "metrics": {},
    }
    variables = init_variables(network(num_classes=len(classes)), jax.random.key(seed), 32)
    head = variables["params"]["head"]
    head["kernel"] = 3 * head["kernel"]  # far from equal probabilities
    self.values = jax.device_get(variables)

  def variables(self):
    return self.values


@pytest.fixture
def teacher(small, tmp_path):
  """A function that writes weights and returns their path."""

  def write(seed, classes=CLASSES, **meta):
    file = tmp_path / f"teacher{seed}.safetensors"
    save_weights(Trained(small, seed, classes, **meta), file, dtype="float32")
    return str(file)

  return write


def _images(channels, size=32, count=4):
  pixels = np.random.default_rng(5).integers(0, 256, (count, size, size, channels), np.uint8)
  return np.repeat(pixels, 3, axis=3) if channels == 1 else pixels


def _predicted(weights, images):
  """What `ferjax predict` gives."""
  faces = ExpressionClassifier(weights, batch_size=4).classify_crops(images)
  return [face.scores for face in faces]


def _targets(names, images, label, classes=CLASSES, weight=0.5):
  teachers = open_teachers(TrainConfig(teachers=tuple(names), teacher_weight=weight), classes)
  batch = {"image": images, "label": label}
  return np.asarray(jax.jit(teachers.targets)(batch, teachers.variables))


def test_targets_are_the_mean_of_label_and_predictions(teacher):
  first, second = teacher(1), teacher(2)
  images, label = _images(1), np.eye(3, dtype=np.float32)[[0, 2, 1, 1]]
  found = _targets([first, second], images[..., :1], label, weight=0.3)
  rows = [_predicted(file, images) for file in (first, second)]
  predicted = np.array([[[face[c] for c in CLASSES] for face in faces] for faces in rows])
  assert np.abs(predicted[0] - predicted[1]).max() > 0.1
  expected = 0.7 * label + 0.3 * predicted.mean(axis=0)
  np.testing.assert_allclose(found, expected, atol=1e-6)


def test_classes_by_name_and_only_those_to_be_taught(teacher):
  file = teacher(1, (*CLASSES, "fear"))
  images, label = _images(1), np.zeros((4, 2), np.float32)
  found = _targets([file], images, label, ("surprise", "happiness"), weight=1.0)
  rows = [(face["surprise"], face["happiness"]) for face in _predicted(file, images)]
  expected = np.array(rows) / np.sum(rows, axis=1, keepdims=True)
  np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_grey_teacher_of_colour_images(teacher):
  file, images, label = teacher(1), _images(3), np.zeros((4, 3), np.float32)
  found = _targets([file], images, label, weight=1.0)
  expected = np.array([list(face.values()) for face in _predicted(file, images)])
  np.testing.assert_allclose(found, expected, atol=2e-3)  # luma is rounded otherwise


def test_a_teacher_for_another_size(teacher):
  """Enlarged images without detail: interpolation gives the same whatever its rule."""
  file, label = teacher(1, size=64), np.zeros((2, 3), np.float32)
  images = np.broadcast_to(np.uint8([60, 190])[:, None, None, None], (2, 32, 32, 3))
  found = _targets([file], images[..., :1], label, weight=1.0)
  expected = np.array([list(face.values()) for face in _predicted(file, images)])
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_no_teachers():
  assert open_teachers(TrainConfig(), CLASSES) is None


def test_errors_say_what_is_expected(teacher, tmp_path):
  file = teacher(1)
  with pytest.raises(ValueError, match="does not know fear; it knows happiness, anger, surprise"):
    open_teachers(TrainConfig(teachers=(file,)), ("fear", "anger"))
  with pytest.raises(ValueError, match="a network for detection; expected classifiers"):
    open_teachers(TrainConfig(teachers=("fer-yolo-mamba-nano-scenes",)), CLASSES)
  with pytest.raises(FileNotFoundError, match="emonext-atto-ferplus"):
    open_teachers(TrainConfig(teachers=(str(tmp_path / "none"),)), CLASSES)


def _config(*, on_device=False, **train):
  return Config(
    model=ModelConfig(name="small"),
    data=DataConfig(
      source="synthetic_faces",
      class_names=CLASSES,
      image_size=32,
      grey=True,
      on_device=on_device,
      face_augment=FaceAugmentConfig(rotation=0.0, mixup=0.3),
    ),
    optimizer=OptimizerConfig(learning_rate=0.1),
    train=TrainConfig(
      **{"epochs": 2, "batch_size": 4, "freeze": "none", "ema_decay": 0.0, "curves": False} | train
    ),
    eval=EvalConfig(batch_size=4),
  )


class Relabelled(SyntheticFaces):
  """The same faces, all happy."""

  def __getitem__(self, index):
    return {**super().__getitem__(index), "label": np.float32([1, 0, 0])}


def _train(workdir, config, network, *, faces=SyntheticFaces, devices=1):
  """The variables after the last step."""
  sources = [faces(8, image_size=36, seed=seed, class_names=CLASSES) for seed in (1, 2)]
  model, task = network(num_classes=3), ClassificationTask(CLASSES)
  trainer = Trainer(config, workdir, model, task, *sources, mesh=make_mesh(devices))
  try:
    trainer.run()
  finally:
    trainer.close()
  return load_variables(workdir, step="latest")


def test_with_all_weight_labels_do_not_matter(teacher, small, tmp_path):
  config = _config(teachers=(teacher(1),), teacher_weight=1.0)
  expected = _train(tmp_path / "a", config, small)
  chex.assert_trees_all_close(
    _train(tmp_path / "b", config, small, faces=Relabelled), expected, atol=1e-6
  )
  plain = _config()
  labelled = _train(tmp_path / "c", plain, small)
  bias, other = (tree["params"]["head"]["bias"] for tree in (expected, labelled))
  assert np.abs(bias - other).max() > 1e-3


def _step_batch(config, devices=2):
  """The first batch, as the step gets it."""
  faces = SyntheticFaces(8, image_size=36, seed=1, class_names=CLASSES)
  data = TrainingData(faces, config, make_mesh(devices))
  iterator = data.batches(4, 0)
  step = data.compile(lambda state, batch, key: (state, batch))
  _, batch = step({}, next(iterator).arrays, jax.random.key(0))
  iterator.close()
  return jax.device_get(batch)


@pytest.mark.parametrize("on_device", [False, True])
def test_the_teacher_sees_the_mixed_images_of_the_step(teacher, on_device):
  file = teacher(1)
  batch = _step_batch(_config(on_device=on_device, teachers=(file,), teacher_weight=1.0))
  plain = _step_batch(_config(on_device=on_device))
  np.testing.assert_array_equal(batch["image"], plain["image"])
  assert ((plain["label"] > 0.01).sum(axis=1) > 1).any()  # some are mixed
  images = np.repeat(batch["image"], 3, axis=3)
  expected = np.array([list(face.values()) for face in _predicted(file, images)])
  np.testing.assert_allclose(batch["label"], expected, atol=1e-5)


def test_two_devices_give_the_same(teacher, small, tmp_path):
  config = _config(teachers=(teacher(1), teacher(2)))
  expected = _train(tmp_path / "one", config, small)
  two = _train(tmp_path / "two", config, small, devices=2)
  chex.assert_trees_all_close(two, expected, atol=1e-5)
