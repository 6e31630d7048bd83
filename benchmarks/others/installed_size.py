"""The bytes that pip installed for a requirement in this environment, such as `ferjax[onnx]`."""

import importlib.metadata
import pathlib
import sys
import tomllib

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).parents[2]


def main() -> None:
  waiting, seen, size = [Requirement(sys.argv[1])], set(), 0
  while waiting:
    wanted = waiting.pop()
    for extra in ("", *wanted.extras):
      name = canonicalize_name(wanted.name)
      if (name, extra) in seen:
        continue
      folder = ROOT / name
      if folder.is_dir():  # of this checkout, which may be newer than what is installed
        files, requires = list(folder.rglob("*")), own_requirements(extra)
      else:
        found = importlib.metadata.distribution(name)
        files = [pathlib.Path(str(found.locate_file(x))) for x in found.files or []]
        requires = [Requirement(x) for x in found.requires or []]
      if all(other != name for other, _ in seen):
        kept = (x for x in files if x.is_file() and x.suffix != ".pyc")
        size += sum(x.stat().st_size for x in kept)
      seen.add((name, extra))
      environment = {"extra": extra}
      waiting += [x for x in requires if x.marker is None or x.marker.evaluate(environment)]
  print(size)


def own_requirements(extra: str) -> list[Requirement]:
  project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
  texts = project["optional-dependencies"][extra] if extra else project["dependencies"]
  return [Requirement(text) for text in texts]


if __name__ == "__main__":
  main()
