"""The predictor of detections with a real checkpoint."""

import jax
import pytest

from ferjax.checkpoint import load_variables
from ferjax.data.image import letterbox, normalize
from ferjax.expressions import SEVEN_EXPRESSIONS
from ferjax.inference.detection import Predictor
from ferjax.inference.results import Face
from ferjax.models import create_model
from ferjax.tasks.detection.task import DetectionTask


@pytest.fixture(scope="module")
def real(tiny_checkpoint):
  return Predictor(tiny_checkpoint, batch_size=3, score_threshold=0.5)


def test_a_checkpoint_describes_itself(real, tiny_checkpoint):
  assert real.class_names == SEVEN_EXPRESSIONS
  assert (real.image_size, real.step) == (64, 3)
  with pytest.raises(FileNotFoundError, match="no checkpoint of step 4"):
    Predictor(tiny_checkpoint, step=4)


def test_predictions_match_model_and_postprocessing(
  real, tiny_checkpoint, photographs, check_same_faces
):
  """Without the predictor's own batches and threads."""
  model = create_model("fer_yolo_mamba", num_classes=7, size="nano")
  task = DetectionTask(SEVEN_EXPRESSIONS)
  square, placement = letterbox(photographs[1], 64)

  @jax.jit
  def detect(variables, image, placement):
    return task.postprocess(
      model.apply(variables, image, train=False),
      image_size=64,
      placement=placement,
      score_threshold=0.5,
      iou_threshold=0.3,
      max_detections=100,
      per_class_nms=False,
    )

  expected = detect(load_variables(tiny_checkpoint), normalize(square)[None], placement[None])
  found = [
    Face(
      box=tuple(map(float, expected.boxes[0, row])),
      score=float(expected.scores[0, row]),
      expression=SEVEN_EXPRESSIONS[expected.labels[0, row]],
      scores=dict(zip(SEVEN_EXPRESSIONS, map(float, expected.class_scores[0, row]), strict=True)),
    )
    for row in range(int(expected.mask[0].sum()))
  ]
  (prediction,) = real.predict([photographs[1]])
  assert len(prediction.faces) > 0
  check_same_faces(prediction.faces, found, score_threshold=0.5)
  for face in prediction.faces:
    assert face.score == max(face.scores.values())


def test_a_batch_equals_single_images(real, photographs, check_same_faces):
  together = real.predict(photographs)
  alone = [real.predict([photograph])[0] for photograph in photographs]
  assert sum(len(prediction.faces) for prediction in alone) > 5
  for a, b in zip(together, alone, strict=True):
    assert (a.width, a.height) == (b.width, b.height)
    check_same_faces(a.faces, b.faces, score_threshold=0.5)


def test_another_task_is_an_error(classifier_checkpoint):
  with pytest.raises(ValueError, match="task 'classification'; expected 'detection'"):
    Predictor(classifier_checkpoint)


def test_a_folder_without_checkpoint(tmp_path):
  with pytest.raises(FileNotFoundError, match="no checkpoint in"):
    Predictor(tmp_path)
