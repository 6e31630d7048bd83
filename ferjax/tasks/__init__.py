"""The tasks that models are trained for."""

from collections.abc import Mapping

from ferjax.config import Config
from ferjax.models.registry import model_spec
from ferjax.tasks.base import Task
from ferjax.tasks.classification.task import ClassificationTask
from ferjax.tasks.detection.task import DetectionTask

# By the name that models, data and checkpoints use.
TASKS: Mapping[str, type[Task]] = {task.name: task for task in (DetectionTask, ClassificationTask)}


def task_name(config: Config) -> str:
  """The task of the config's model, a key of `TASKS`; ValueError for an unknown model or task."""
  name = model_spec(config.model.name).task
  if name not in TASKS:
    raise ValueError(
      f"the model {config.model.name} is for the task {name!r}; known: {', '.join(TASKS)}"
    )
  return name


def create_task(config: Config) -> Task:
  """The task of the config's model, for its classes.

  Raises:
    ValueError: an unknown model, or settings that the task does not support.
  """
  return TASKS[task_name(config)].from_config(config)
