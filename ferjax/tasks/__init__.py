"""What differs between finding faces and classifying them."""

from ferjax.config import Config
from ferjax.models import TASKS
from ferjax.tasks.classification.task import ClassificationTask
from ferjax.tasks.detection.task import DetectionTask

Task = DetectionTask | ClassificationTask


def create_task(config: Config) -> Task:
  """The task of the config's model, for its classes.

  Raises:
    ValueError: an unknown model, or settings that the task does not have.
  """
  name, class_names = config.model.name, tuple(config.data.class_names)
  if name not in TASKS:
    raise ValueError(f"unknown model.name {name!r}; known: {', '.join(TASKS)}")
  if TASKS[name] == "detection":
    return DetectionTask(class_names)
  return ClassificationTask(class_names, config.loss)
