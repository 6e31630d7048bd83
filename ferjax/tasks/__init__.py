"""What differs between finding faces and classifying them."""

from ferjax.config import Config
from ferjax.models.registry import model_spec
from ferjax.tasks.classification.task import ClassificationTask
from ferjax.tasks.detection.task import DetectionTask

Task = DetectionTask | ClassificationTask


def create_task(config: Config) -> Task:
  """The task of the config's model, for its classes.

  Raises:
    ValueError: an unknown model, or settings that the task does not have.
  """
  class_names = tuple(config.data.class_names)
  if model_spec(config.model.name).task == "detection":
    return DetectionTask(class_names)
  return ClassificationTask(class_names, config.loss)
