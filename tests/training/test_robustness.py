import dataclasses
import json

import jax
import numpy as np
import pytest

from ferjax.config import DataConfig
from ferjax.data.distortions import STRENGTHS, DistortedSource, distortions_of
from ferjax.data.synthetic.faces import SyntheticFaces
from ferjax.tasks.classification.task import ClassificationTask
from ferjax.training.evaluation import Evaluation
from ferjax.training.inputs import preprocess_of
from ferjax.training.robustness import FILES, measure_robustness
from ferjax.training.sharding import make_mesh, replicated
from ferjax.training.state import init_variables
from ferjax.training.step import make_eval_step
from ferjax.weights.defaults import DEFAULT_CLASSIFIER
from ferjax.weights.opening import open_weights

NAMES = ("neutral", "surprise")
COUNT = 12
TRACES = []  # shapes of the images that the network was traced with


@pytest.fixture(scope="module")
def evaluation(tiny, classifier, tmp_path_factory):
  """Of a new classifier; the weights only give the name."""
  config, mesh, model = tiny.config(), make_mesh(1), counted(classifier)(num_classes=2)
  config.data.class_names, config.eval.batch_size = NAMES, COUNT
  task = ClassificationTask(NAMES)
  variables = init_variables(model, jax.random.key(0), 32)
  step = make_eval_step(model, task, config.eval, 32, mesh, preprocess=preprocess_of(DataConfig()))
  return Evaluation(
    opened=open_weights(DEFAULT_CLASSIFIER),
    config=config,
    task=task,
    mesh=mesh,
    step=step,
    variables=jax.device_put(variables, replicated(mesh)),
    source=SyntheticFaces(COUNT, image_size=32, seed=0, class_names=NAMES),
    split="val",
    folder=tmp_path_factory.mktemp("results"),
  )


def counted(classifier):
  """The classifier, which counts how often it is traced."""

  class Counted(classifier):
    def __call__(self, image, *, train):
      TRACES.append(image.shape)
      return super().__call__(image, train=train)

  return Counted


@pytest.fixture(scope="module")
def measured(evaluation):
  report = evaluation.report()
  TRACES.clear()
  return report, measure_robustness(evaluation, report.metrics)


def test_rows_are_evaluations_of_distorted_images(evaluation, measured):
  report, robustness = measured
  assert robustness.clean == report.metrics
  assert robustness.images == COUNT
  assert robustness.shown == ("accuracy", "balanced_accuracy")
  kinds = list(distortions_of("classification"))
  assert len(kinds) == 8
  assert robustness.distortions == kinds
  pairs = [(row["distortion"], row["strength"]) for row in robustness.rows]
  assert pairs == [(kind, strength) for kind in kinds for strength in STRENGTHS]
  for kind, strength in (("darkness", 4), ("noise", 5)):
    expected, _ = evaluation.run(DistortedSource(evaluation.source, kind, strength))
    assert robustness.of(kind)[strength - 1] == expected
    assert expected["loss"] != pytest.approx(report.metrics["loss"], rel=1e-3)


def test_one_program_for_all_passes(measured, evaluation):
  assert TRACES == []
  half = jax.tree.map(lambda x: x.astype("float16"), evaluation.variables)
  dataclasses.replace(evaluation, variables=half).run(evaluation.source)
  assert TRACES  # other types need another program


def test_files(measured, tmp_path):
  _, robustness = measured
  robustness.write(tmp_path)
  content = json.loads((tmp_path / FILES[0]).read_text())
  assert content["clean"]["accuracy"] == robustness.clean["accuracy"]
  assert (len(content["rows"]), content["images"]) == (40, COUNT)
  assert content["rows"][0]["distortion"] == "blur"
  assert content["rows"][0]["level"] == 0.01
  table = (tmp_path / FILES[1]).read_text()
  row = next(line for line in table.splitlines() if line.startswith("| darkness"))
  cells = [cell.strip() for cell in row.split("|")[3:-1]]
  assert [float(cell.split()[0]) for cell in cells] == pytest.approx(
    [metrics["accuracy"] for metrics in robustness.of("darkness")], abs=5e-4
  )
  assert (tmp_path / FILES[2]).read_bytes().startswith(b"\x89PNG")


def test_a_sample_is_the_same_in_all_passes(evaluation, measured):
  report, _ = measured
  robustness = measure_robustness(evaluation, report.metrics, images=6)
  assert robustness.images == robustness.clean["num_images"] == 6
  assert {row["metrics"]["num_images"] for row in robustness.rows} == {6}
  counts = {row["metrics"]["count/neutral"] for row in robustness.rows}
  assert counts == {robustness.clean["count/neutral"]}
  assert np.isfinite([row["metrics"]["loss"] for row in robustness.rows]).all()
  with pytest.raises(ValueError, match="a sample of -1 images; expected at least 1, or 0"):
    measure_robustness(evaluation, report.metrics, images=-1)


def test_drawings_are_grouped_by_their_factors(evaluation, measured):
  report, _ = measured
  names = [column.name for column in report.groups.columns]
  assert {"intensity", "glasses", "rotation"} <= set(names)
  assert (evaluation.folder / "groups.md").read_text().startswith("| intensity | records |")


def test_a_detector_has_no_crop_offset(evaluation, tiny, tmp_path):
  class Task(tiny.Task):
    shown_metrics = ("missing", "other", "map50")  # as if no box had a label

  config, mesh, model = tiny.config(), make_mesh(1), tiny.Model()
  variables = init_variables(model, jax.random.key(0), 32)
  preprocess = preprocess_of(DataConfig())
  detector = dataclasses.replace(
    evaluation,
    config=config,
    task=Task(),
    step=make_eval_step(model, Task(), config.eval, 32, mesh, preprocess=preprocess),
    variables=jax.device_put(variables, replicated(mesh)),
    source=tiny.Source(4),
  )
  robustness = measure_robustness(detector, detector.run(detector.source)[0])
  assert robustness.distortions == list(distortions_of("detection"))
  assert (len(robustness.rows), robustness.shown) == (35, ("map50",))
  assert {row["metrics"]["num_images"] for row in robustness.rows} == {4}
  robustness.write(tmp_path)
  assert "| rotation | degrees: 10, 20, 30, 45, 60 | " in (tmp_path / FILES[1]).read_text()
