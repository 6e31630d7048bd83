"""How commands go through images and write a result for each."""

import argparse
import contextlib
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ferjax.commands.errors import CommandError
from ferjax.output import check_writable

if TYPE_CHECKING:
  from ferjax.data.image import ImageError
  from ferjax.inference.files import FoundImages


@runtime_checkable
class Writer(Protocol):
  """What is asked of the writers of results, which are context managers."""

  output: pathlib.Path
  images: list[dict[str, Any]]
  skipped: list[dict[str, str]]

  def skip(self, path: str, reason: str, /) -> None: ...


def open_paths(
  arguments: argparse.Namespace, *, files: Sequence[str], folders: Sequence[str]
) -> "FoundImages":
  """Finds the images, and makes sure that results can be written, before anything is loaded.

  Args:
    arguments: of `add_image_options`.
    files: that will be written into the folder for the results.
    folders: that will be made in it.

  Raises:
    OSError: nothing is found, or nothing can be written.
  """
  from ferjax.inference.files import find_images

  found = find_images(arguments.paths, recursive=arguments.recursive, output=arguments.output)
  check_writable(arguments.output, files)
  for folder in folders:
    check_writable(pathlib.Path(arguments.output) / folder)
  return found


@contextlib.contextmanager
def writing(writer: Writer, total: int) -> Iterator[None]:
  """Turns the errors of going through `total` images into those that users read."""
  from ferjax.data.image import ImageError

  try:
    yield
  except ImageError as error:
    raise CommandError(
      f"{error}\n  {len(writer.images)} of {total} images are in {writer.output}; "
      "--on-bad-image skip leaves such files out"
    ) from error
  except OSError as error:
    raise CommandError(f"cannot write the results: {error}") from error


@contextlib.contextmanager
def progress_of(
  writer: Writer, total: int, *, skip: bool
) -> "Iterator[tuple[Callable[[], object], Callable[[str, ImageError], None] | None]]":
  """Shows how many of the images are done.

  Yields what to call after each image, and what to call for an image that cannot be read: it names
  the image and goes on; None if such images are errors.
  """
  from tqdm import tqdm

  with tqdm(total=total, unit="image", disable=None) as progress:

    def leave_out(path: str, error: "ImageError") -> None:
      progress.write(f"ferjax: warning: skipped {error}", file=sys.stderr)
      progress.update()
      writer.skip(path, str(error).removeprefix(f"{path}: "))

    yield progress.update, leave_out if skip else None


def print_ignored(found: "FoundImages") -> None:
  """A line on the files of folders that are not images, if there are any."""
  from ferjax.data.image_files import describe_ignored

  if line := describe_ignored(found.ignored):
    print(line)


def warn_of_letters(class_names: Sequence[str]) -> None:
  """Says if pictures cannot show the names of all classes."""
  from ferjax.fonts import lettering

  if warning := lettering(class_names).warning:
    print(f"ferjax: warning: {warning}", file=sys.stderr)
