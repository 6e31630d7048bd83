"""The tasks that models are trained for."""

from collections.abc import Mapping

from ferjax import models
from ferjax.config import Config
from ferjax.tasks.base import Task
from ferjax.tasks.classification.task import ClassificationTask
from ferjax.tasks.detection.task import DetectionTask

# By the name that models, data and checkpoints have for them.
TASKS: Mapping[str, type[Task]] = {task.name: task for task in (DetectionTask, ClassificationTask)}


def task_name(config: Config) -> str:
  """What the config's model is for, a key of `TASKS`; a ValueError for an unknown model."""
  name = config.model.name
  if name not in models.TASKS:
    raise ValueError(f"unknown model.name {name!r}; known: {', '.join(models.TASKS)}")
  return models.TASKS[name]


def create_task(config: Config) -> Task:
  """The task of the config's model, for its classes.

  Raises:
    ValueError: an unknown model, or settings that the task does not have.
  """
  return TASKS[task_name(config)].from_config(config)
