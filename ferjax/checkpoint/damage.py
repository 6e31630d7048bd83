"""Checkpoints that a failing disk or a program has truncated or deleted in part."""

import jax
from absl import logging
from etils import epath
from jax.experimental import multihost_utils

from ferjax.checkpoint.reading import (
  DamagedCheckpointError,
  problem_of_arrays,
  read_json,
  read_score,
  steps_of,
)

DAMAGED = "damaged"
_NONE, _ALL = -1, -2  # what the first host tells the others instead of a step


def set_damaged_aside(folder: epath.Path) -> None:
  """Moves damaged checkpoints to `<workdir>/damaged`: a run resumes from the newest good one.

  The newest is read as a whole, and if it is damaged, the one before it, and so on. Of those before
  the newest good one, only the score is read. Nothing is deleted, and nothing is moved if no good
  one is left. All hosts call this together; the first one reads and moves.

  Args:
    folder: `<workdir>/checkpoints`; need not exist.

  Raises:
    DamagedCheckpointError: all checkpoints are damaged; nothing is changed.
  """
  problems: dict[int, str] = {}
  good = _NONE
  if jax.process_index() == 0:
    for step in reversed(steps_of(folder.parent)):
      problem = problem_of(folder / str(step), whole=good < 0)
      if problem:
        problems[step] = problem
      else:
        good = max(good, step)
    good = _ALL if problems and good < 0 else good
  good = int(multihost_utils.broadcast_one_to_all(good))
  if good == _ALL:
    listed = "; ".join(f"{step}: {problem}" for step, problem in problems.items())
    raise DamagedCheckpointError(
      f"every checkpoint in {folder} is damaged ({listed or 'see the first host'}). Restore one of "
      "them, or delete the folder to start again"
    )
  for step, problem in problems.items():
    target = _free_name(folder.parent / DAMAGED / str(step))
    target.parent.mkdir(parents=True, exist_ok=True)
    (folder / str(step)).rename(target)
    logging.warning(
      "the checkpoint of step %d is damaged (%s); it is now in %s, and the newest good one is of "
      "step %d",
      step,
      problem,
      target,
      good,
    )
  multihost_utils.sync_global_devices("damaged checkpoints")


def problem_of(folder: epath.Path, *, whole: bool) -> str:
  """Why a checkpoint cannot be read, in one line; "" if it can be.

  Args:
    folder: of the step.
    whole: whether to read everything, or only the score.
  """
  try:
    read_score(folder)
    return _problem_of_content(folder) if whole else ""
  except KeyError as error:
    return f"it lacks {error}"
  except (ValueError, OSError) as error:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def _problem_of_content(folder: epath.Path) -> str:
  meta = read_json(folder / "meta" / "metadata")
  if problem := problem_of_arrays(folder / "variables"):
    return problem
  if not meta["config"]:  # an imported network
    return ""
  if problem := problem_of_arrays(folder / "train"):
    return problem
  positions = [file for file in (folder / "data").iterdir() if file.suffix == ".json"]
  if not positions:
    raise FileNotFoundError(f"{folder / 'data'} has no position of the data")
  for file in positions:
    read_json(file)
  return ""


def _free_name(path: epath.Path) -> epath.Path:
  """The path, or with a number behind it if it exists."""
  number = 0
  candidate = path
  while candidate.exists():
    number += 1
    candidate = path.parent / f"{path.name}.{number}"
  return candidate
