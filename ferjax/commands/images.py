"""Shared by the commands that process images and write a result for each."""

import argparse
import contextlib
import gc
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from ferjax.commands.errors import CommandError
from ferjax.output import check_writable, one_line
from ferjax.progress import Progress

if TYPE_CHECKING:
  from ferjax.data.image import ImageError
  from ferjax.inference.files import FoundImages


@runtime_checkable
class Writer(Protocol):
  """The interface of the result writers, which are context managers.

  `written` is the number of images with a result.
  """

  output: pathlib.Path

  @property
  def written(self) -> int: ...

  def skip(self, path: str, reason: str, /) -> None: ...


def resolve_paths(
  arguments: argparse.Namespace, *, files: Sequence[str], folders: Sequence[str]
) -> "FoundImages":
  """Finds the images, and checks that results can be written, before anything is loaded.

  Args:
    arguments: of `add_image_options`.
    files: names of the files to be written into the output folder.
    folders: names of the folders to be created in it.

  Raises:
    OSError: no image is found, or the output cannot be written.
  """
  from ferjax.inference.files import find_images

  found = find_images(arguments.paths, recursive=arguments.recursive, output=arguments.output)
  check_writable(arguments.output, files)
  for folder in folders:
    check_writable(pathlib.Path(arguments.output) / folder)
  return found


@contextlib.contextmanager
def paused_collection() -> Iterator[None]:
  """Pauses the collector of reference cycles, for a short run.

  Importing and tracing the networks creates many objects that stay; visiting them again and again
  took 0.3 of the 2.9 seconds of a run with one image.
  """
  enabled = gc.isenabled()
  gc.disable()
  try:
    yield
  finally:
    if enabled:
      gc.enable()


@contextlib.contextmanager
def writing(writer: Writer, total: int) -> Iterator[None]:
  """Converts errors while processing `total` images to CommandErrors."""
  from ferjax.data.image import ImageError
  from ferjax.trained import WeightsError

  try:
    yield
  except ImageError as error:
    raise CommandError(
      f"{error}\n  {writer.written} of {total} images are in {writer.output}; "
      "--on-bad-image skip skips unreadable files"
    ) from error
  except WeightsError as error:
    raise CommandError(error) from error
  except OSError as error:
    raise CommandError(f"cannot write the results: {error}") from error


@contextlib.contextmanager
def progress_bar(
  writer: Writer, total: int, *, skip: bool, done: int = 0
) -> "Iterator[tuple[Callable[[], object], Callable[[str, ImageError], None] | None]]":
  """Shows the number of processed images, of which `done` were processed before.

  Yields a function to call after each image, and one to call for an unreadable image, which reports
  and records it; None instead if unreadable images are errors.
  """
  with Progress(total, "image", done=done) as progress:

    def skip_image(path: str, error: "ImageError") -> None:
      progress.line(f"ferjax: warning: skipped {error}")
      progress.update()
      writer.skip(path, str(error).removeprefix(one_line(f"{path}: ")))

    yield progress.update, skip_image if skip else None


def print_ignored(found: "FoundImages") -> None:
  """Prints a line about the other files in the folders, if any."""
  from ferjax.data.image_files import describe_ignored

  if line := describe_ignored(found.ignored):
    print(line)


def warn_about_fonts(class_names: Sequence[str]) -> None:
  """Warns if the installed fonts cannot render all class names."""
  from ferjax.fonts import lettering

  if warning := lettering(class_names).warning:
    print(f"ferjax: warning: {warning}", file=sys.stderr)
