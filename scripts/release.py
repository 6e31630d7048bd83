"""Builds the wheel and the source archive of a release, and tries both as a new user would.

  pip install build twine
  python scripts/release.py --python python3.11 --python python3.12

The version of `ferjax/_version.py`, CHANGELOG.md and CITATION.cff must agree, and the files of the
checkout must be committed. Each archive is installed with each Python in a new environment; outside
the checkout, it must show its help, find three faces in a photograph with the weights that it
contains, and train and evaluate a network for two epochs. The report is a table in Markdown; the
exit code is 1 if anything failed. Nothing is uploaded: the last lines say how.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).resolve().parents[1]
PHOTOGRAPH = ROOT / "tests" / "photographs" / "portraits.jpg"
FACES = 3  # in the photograph
LIMIT_S = 1800


class ReleaseError(Exception):
  """A step failed; the message says which, and with what output."""


def main() -> int:
  parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
  parser.add_argument("--output", default=str(ROOT / "dist"), help="folder for the archives")
  parser.add_argument(
    "--python", action="append", default=[], help="an interpreter to try; may be repeated"
  )
  arguments = parser.parse_args()
  try:
    version = agreed_version(ROOT)
    check_committed()
    archives = build(pathlib.Path(arguments.output), version)
  except ReleaseError as error:
    print(f"error: {error}", file=sys.stderr)
    return 1
  rows, failures = [], []
  for python in arguments.python or [sys.executable]:
    for archive in archives:
      try:
        rows.append(try_archive(python, archive))
      except ReleaseError as error:
        failures.append(f"{archive.name} with {python}: {error}")
  print_report(version, archives, rows, failures)
  return 1 if failures else 0


def agreed_version(root: pathlib.Path) -> str:
  """The version of the package; a ReleaseError if another file has another one."""
  patterns = {
    "ferjax/_version.py": r'^__version__ = "(.+)"$',
    "CHANGELOG.md": r"^## \[(.+?)\] - \d{4}-\d\d-\d\d$",
    "CITATION.cff": r"^version: (\S+)$",
  }
  found = {}
  for name, pattern in patterns.items():
    match = re.search(pattern, (root / name).read_text(encoding="utf-8"), re.MULTILINE)
    if match is None:
      raise ReleaseError(f"{name}: no version; expected a line {pattern}")
    found[name] = match[1]
  if len(set(found.values())) > 1:
    raise ReleaseError(f"the versions differ: {found}; make them equal")
  return found["ferjax/_version.py"]


def check_committed() -> None:
  changed = run(["git", "status", "--porcelain"], ROOT).strip()
  if changed:
    raise ReleaseError(f"these files are not committed; commit or remove them:\n{changed}")


def build(output: pathlib.Path, version: str) -> list[pathlib.Path]:
  """The wheel and the source archive, from a clone: files that git does not have stay out."""
  with tempfile.TemporaryDirectory() as folder:
    clone = pathlib.Path(folder) / "ferjax"
    run(["git", "clone", "--quiet", str(ROOT), str(clone)], ROOT)
    run([sys.executable, "-m", "build", "--outdir", str(output), str(clone)], pathlib.Path(folder))
  archives = [output / f"ferjax-{version}-py3-none-any.whl", output / f"ferjax-{version}.tar.gz"]
  run([sys.executable, "-m", "twine", "check", "--strict", *map(str, archives)], output)
  return archives


def try_archive(python: str, archive: pathlib.Path) -> dict[str, str]:
  """Installs an archive in a new environment and uses it in an empty folder."""
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    run([python, "-m", "venv", "environment"], folder)
    binaries = folder / "environment" / "bin"
    row = {"Python": run([str(binaries / "python"), "--version"], folder).split()[1]}
    row["archive"] = archive.name
    start = time.monotonic()
    run([str(binaries / "python"), "-m", "pip", "install", "--quiet", str(archive)], folder)
    row["installation"] = f"{time.monotonic() - start:.0f} s"
    ferjax = str(binaries / "ferjax")
    if "predict" not in run([ferjax, "--help"], folder):
      raise ReleaseError("the help does not name the commands")
    check_typed(binaries, folder)
    shutil.copy(PHOTOGRAPH, folder / "photo.jpg")
    start = time.monotonic()
    run([ferjax, "predict", "photo.jpg"], folder)
    row["prediction, cold"] = f"{time.monotonic() - start:.1f} s"
    document = json.loads((folder / "predictions" / "predictions.json").read_text())
    faces = len(document["images"][0]["faces"])
    if faces != FACES:
      raise ReleaseError(f"{faces} faces in the photograph; expected {FACES}")
    row["faces"] = str(faces)
    run([ferjax, "train", "--config", "emonext:tiny", "--workdir", "run"], folder)
    accuracy = re.search(
      r"accuracy +([\d.]+)", run([ferjax, "evaluate", "--workdir", "run"], folder)
    )
    if accuracy is None:
      raise ReleaseError("the evaluation printed no accuracy")
    row["trained and evaluated"] = "yes"
  return row


def check_typed(binaries: pathlib.Path, folder: pathlib.Path) -> None:
  code = (
    "import ferjax, pathlib; print((pathlib.Path(ferjax.__file__).parent / 'py.typed').exists())"
  )
  if run([str(binaries / "python"), "-c", code], folder).strip() != "True":
    raise ReleaseError("py.typed is missing")


def run(command: Sequence[str], folder: pathlib.Path) -> str:
  """What the command prints; a ReleaseError with its last lines if it fails."""
  # A checkout in PYTHONPATH would be imported instead of the installed package.
  environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
  environment["FERJAX_COMPILATION_CACHE"] = str(folder / "compiled")  # empty for each archive
  done = subprocess.run(
    command,
    cwd=folder,
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    timeout=LIMIT_S,
    check=False,
  )
  if done.returncode:
    last = "\n".join(done.stdout.splitlines()[-20:])
    raise ReleaseError(f"{' '.join(command)} ended with exit code {done.returncode}:\n{last}")
  return done.stdout


def print_report(
  version: str,
  archives: Sequence[pathlib.Path],
  rows: Sequence[dict[str, str]],
  failures: Sequence[str],
) -> None:
  for archive in archives:
    print(f"- {archive.name}: {archive.stat().st_size / 1e6:.1f} MB")
  if rows:
    print(f"\n| {' | '.join(rows[0])} |\n|{' --- |' * len(rows[0])}")
    for row in rows:
      print(f"| {' | '.join(row.values())} |")
  for failure in failures:
    print(f"\nFAILED: {failure}")
  if not failures:
    files = " ".join(map(str, archives))
    print(
      f"\nTo publish:\n  git tag -a v{version} -m 'ferjax {version}'\n"
      f"  git push origin v{version}\n  python -m twine upload {files}"
    )


if __name__ == "__main__":
  sys.exit(main())
