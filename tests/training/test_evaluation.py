import dataclasses
import pathlib

import jax
import numpy as np
import pytest

from ferjax.checkpoint import open_checkpoint
from ferjax.config import DataConfig, LossConfig
from ferjax.data.image import ImageError, normalize
from ferjax.data.pipeline import eval_dataset
from ferjax.data.synthetic.faces import SyntheticFaces
from ferjax.tasks.classification.task import ClassificationTask
from ferjax.training import evaluation
from ferjax.training.evaluation import ReportError, eval_checkpoint, evaluate
from ferjax.training.inputs import preprocess_of
from ferjax.training.sharding import make_mesh, replicated
from ferjax.training.state import init_variables
from ferjax.training.step import make_eval_step
from ferjax.weights import save_weights

IMAGENET = preprocess_of(DataConfig())


def evaluate_tiny(tiny, *, batch_size, devices, count=7):
  model, mesh, config = tiny.Model(), make_mesh(devices), tiny.config()
  config.eval = dataclasses.replace(config.eval, batch_size=batch_size)
  variables = jax.device_put(init_variables(model, jax.random.key(0), 32), replicated(mesh))
  step = make_eval_step(model, tiny.Task(), config.eval, 32, mesh, preprocess=IMAGENET)
  return evaluate(step, variables, tiny.Source(count), config, tiny.Task(), mesh)


@pytest.mark.parametrize(("batch_size", "devices"), [(1, 1), (4, 1), (4, 2), (16, 2)])
def test_metrics_do_not_depend_on_batches_and_devices(tiny, batch_size, devices):
  whole, accumulator = evaluate_tiny(tiny, batch_size=7, devices=1)
  metrics, _ = evaluate_tiny(tiny, batch_size=batch_size, devices=devices)
  assert metrics == pytest.approx(whole, rel=1e-6)
  # The loss is the mean over all records, not over batches.
  errors = [(value - index % 3) ** 2 for index, value in accumulator.rows.items()]
  assert metrics["loss"] == pytest.approx(np.mean(errors), rel=1e-5)
  assert metrics["num_images"] == metrics["num_matched"] == 7
  assert metrics["skipped_records"] == 0


def test_next_step_is_dispatched_before_results_are_fetched(tiny):
  model, mesh, config, events = tiny.Model(), make_mesh(1), tiny.config(), []
  config.eval = dataclasses.replace(config.eval, batch_size=2)
  variables = jax.device_put(init_variables(model, jax.random.key(0), 32), replicated(mesh))
  step = make_eval_step(model, tiny.Task(), config.eval, 32, mesh, preprocess=IMAGENET)

  class Metrics(tiny.Metrics):
    def add(self, predicted, truth):
      events.append(f"add {truth['index'].max() // 2}")
      super().add(predicted, truth)

  class Task(tiny.Task):
    def metrics(self):
      return Metrics()

  def record(variables, batch):
    events.append("step")
    return step(variables, batch)

  metrics, _ = evaluate(record, variables, tiny.Source(6), config, Task(), mesh)
  assert events == ["step", "step", "add 0", "step", "add 1", "add 2"]
  assert metrics["num_images"] == 6


def test_weighted_loss_is_over_all_records(tiny, classifier):
  """Two batches with unequal sums of class weights, the last one padded, against NumPy."""
  names, weights = ("neutral", "surprise"), np.array([1.0, 5.0])
  config, mesh, model = tiny.config(), make_mesh(1), classifier(num_classes=2)
  source = SyntheticFaces(7, image_size=32, seed=0, class_names=names)
  task = ClassificationTask(names, LossConfig(class_weights=tuple(weights), label_smoothing=0.1))
  variables = jax.device_put(init_variables(model, jax.random.key(0), 32), replicated(mesh))
  step = make_eval_step(model, task, config.eval, 32, mesh, preprocess=IMAGENET)
  metrics, _ = evaluate(step, variables, source, config, task, mesh)

  (batch,) = eval_dataset(source, config.data, batch_size=7)
  images = normalize(batch["image"])
  apply = jax.jit(lambda image: model.apply(variables, image, train=False).logits)
  logits = np.asarray(apply(images), np.float64)
  log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
  losses = -np.sum(weights * (0.9 * batch["label"] + 0.05) * log_p, axis=1)
  divisor = np.sum(weights * batch["label"])
  assert metrics["num_weighted_examples"] == pytest.approx(divisor)
  assert metrics["loss"] == pytest.approx(losses.sum() / divisor, rel=1e-5)


def test_flips_are_averaged_and_scores_shifted(tiny, classifier):
  """The mean of the probabilities of images and mirror images, in NumPy; then a prior's shift."""
  names, prior = ("neutral", "surprise"), np.array([0.9, 0.1])
  config, mesh, model = tiny.config(), make_mesh(1), classifier(num_classes=2)
  config.eval = dataclasses.replace(config.eval, flip=True, logit_adjustment=0.5)
  source = SyntheticFaces(4, image_size=32, seed=0, class_names=names)
  task = ClassificationTask(names, LossConfig(class_prior=tuple(prior)))
  variables = jax.device_put(init_variables(model, jax.random.key(0), 32), replicated(mesh))
  step = make_eval_step(model, task, config.eval, 32, mesh, preprocess=IMAGENET)
  metrics, accumulator = evaluate(step, variables, source, config, task, mesh)

  (batch,) = eval_dataset(source, config.data, batch_size=4)
  views = [normalize(batch["image"]), normalize(batch["image"])[:, :, ::-1]]
  apply = jax.jit(lambda image: model.apply(variables, image, train=False).logits)
  logits = [np.asarray(apply(x), np.float64) for x in views]
  each = [np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in logits]
  assert np.abs(each[0] - each[1]).max() > 1e-3
  mean = (each[0] + each[1]) / 2
  assert metrics["loss"] == pytest.approx(-np.mean(np.sum(batch["label"] * np.log(mean), 1)), 1e-5)
  shifted = mean / np.sqrt(prior)
  expected = (shifted / shifted.sum(1, keepdims=True)).max(1)
  found = [mistake.probability for mistake in accumulator.mistakes(4)]
  wrong = shifted.argmax(1) != batch["label"].argmax(1)
  assert found == pytest.approx(sorted(expected[wrong], reverse=True), rel=1e-5)
  assert metrics["accuracy"] == pytest.approx(1 - wrong.mean())


def test_skipped_records_are_counted_and_named(tiny, caplog):
  class Broken(tiny.Source):
    def __getitem__(self, index):
      if index == 3:
        raise ImageError("record 3: broken")
      return super().__getitem__(index)

  model, mesh, config = tiny.Model(), make_mesh(1), tiny.config()
  config.data.on_bad_record = "skip"
  variables = jax.device_put(init_variables(model, jax.random.key(0), 32), replicated(mesh))
  step = make_eval_step(model, tiny.Task(), config.eval, 32, mesh, preprocess=IMAGENET)
  metrics, _ = evaluate(step, variables, Broken(5), config, tiny.Task(), mesh)
  assert (metrics["skipped_records"], metrics["num_images"]) == (1, 4)
  assert "skipped bad record: record 3" in caplog.text


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("trained")
  return workdir, tiny.train(workdir, tiny.config(epochs=1))


def test_images_have_the_size_of_the_training(trained, tiny, tmp_path, monkeypatch):
  workdir, metrics = trained
  config, sizes = tiny.config(), []
  config.data.image_size = 64

  def load_source(data, split, **options):
    sizes.append(data.image_size)
    return tiny.Source(6)

  monkeypatch.setattr(evaluation, "create_model", lambda **_: tiny.Model())
  monkeypatch.setattr(evaluation, "create_task", lambda config: tiny.Task())
  monkeypatch.setattr(evaluation, "load_source", load_source)
  report = eval_checkpoint(workdir, config, output=tmp_path)
  assert report.metrics == pytest.approx(metrics, rel=1e-6)
  assert sizes == [32]
  assert (tmp_path / "report.txt").read_text() == "6 of 6"
  assert config.data.image_size == 64


def test_weights_are_evaluated_on_data_of_a_config(trained, tiny, tmp_path, monkeypatch):
  workdir, metrics = trained
  file = tmp_path / "own.safetensors"
  save_weights(workdir, file)
  monkeypatch.setattr(evaluation, "create_model", lambda **_: tiny.Model())
  monkeypatch.setattr(evaluation, "create_task", lambda config: tiny.Task())
  monkeypatch.setattr(evaluation, "load_source", lambda *_, **__: tiny.Source(6))
  monkeypatch.chdir(tmp_path)
  with pytest.raises(ValueError, match="does not contain the data of its training; name data to"):
    eval_checkpoint(file)
  report = eval_checkpoint(file, tiny.config())
  # The outputs are near 1, and float16 has a relative error of 5e-4.
  assert report.metrics["map50"] == pytest.approx(metrics["map50"], abs=5e-3)
  assert (report.checkpoint, report.folder) == (file, pathlib.Path("eval"))
  assert (tmp_path / "eval" / "report.txt").read_text() == "6 of 6"


def test_an_imported_network_does_not_name_data(trained):
  opened = open_checkpoint(trained[0])
  imported = dataclasses.replace(opened, meta={**opened.meta, "config": {}})
  with pytest.raises(ValueError, match="does not contain the data of its training; name data to"):
    eval_checkpoint(imported)


def test_unwritable_folder_is_refused_before_the_evaluation(trained, tiny, monkeypatch):
  workdir, _ = trained
  (workdir / "file").touch()
  monkeypatch.setattr(evaluation, "load_source", lambda *_, **__: pytest.fail("evaluated"))
  with pytest.raises(OSError, match=r"file/below: results cannot be written there"):
    eval_checkpoint(workdir, tiny.config(), output=workdir / "file" / "below")
  assert not (workdir / "eval").exists()


def test_metrics_survive_a_write_error(trained, tiny, tmp_path, monkeypatch):
  workdir, metrics = trained

  class Full(tiny.Task):
    def write_report(self, metrics, source, folder):
      raise OSError("no space left on device")

  monkeypatch.setattr(evaluation, "create_model", lambda **_: tiny.Model())
  monkeypatch.setattr(evaluation, "create_task", lambda config: Full())
  monkeypatch.setattr(evaluation, "load_source", lambda *_, **__: tiny.Source(6))
  with pytest.raises(ReportError, match=r"cannot be written to .*no space left") as caught:
    eval_checkpoint(workdir, tiny.config(), output=tmp_path)
  assert caught.value.report.metrics == pytest.approx(metrics, rel=1e-6)


def test_data_of_another_task_are_refused(trained, tiny):
  workdir, _ = trained
  config = tiny.config()
  config.data.source = "image_folder"
  with pytest.raises(ValueError, match=r"the model fer_yolo_mamba is for detection; known sources"):
    eval_checkpoint(workdir, config)


def test_another_order_of_classes_is_refused(trained, tiny):
  workdir, _ = trained
  config = tiny.config()
  config.data.class_names = config.data.class_names[::-1]
  with pytest.raises(ValueError, match=r"was trained for a, b, .*names and order must match"):
    eval_checkpoint(workdir, config)


def test_no_checkpoint_to_evaluate(tmp_path):
  with pytest.raises(FileNotFoundError, match="no checkpoint in"):
    eval_checkpoint(tmp_path)
