"""Measures a detector on real photographs: faces found, false boxes, expressions of portraits.

  python benchmarks/real_photographs.py runs/detector --data DATA [--classifier runs/classifier]
  python benchmarks/real_photographs.py runs/detector --data DATA --validation

DATA has `scenes/faces`, `scenes/backgrounds`, `dlib_faces` and `london`, as in
`benchmarks/cards/photographs.py`. The first form prints what is measured on photographs that were
left out of training, at the default score threshold of the weights. The second form prints recall
and false boxes at many thresholds, on validation photographs, to choose the default threshold from.
Neighbouring photographs of `scenes/faces` show one person, so intervals over photographs are too
narrow for other persons.
"""

import argparse
import json
import pathlib
import sys
from typing import Any

from cards import detector, tables
from cards.photographs import number_range

from ferjax.allocator import keep_freed_memory
from ferjax.compilation_cache import enable_compilation_cache
from ferjax.output import check_writable
from ferjax.weights import open_weights


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """The options that the model cards of detectors have too."""
  add, ranges = parser.add_argument, detector.Ranges()
  add("--data", type=pathlib.Path, required=True, help="folder of the photographs")
  for name in ("faces", "backgrounds", "validation_faces", "validation_backgrounds"):
    own = getattr(ranges, name)
    add(
      f"--{name.replace('_', '-')}",
      type=number_range,
      default=own,
      metavar="FIRST-LAST",
      help=f"numbers of the photographs (default: {own[0]}-{own[-1]})",
    )
  add("--threshold", type=float, help="score threshold (default: that of the weights)")
  add("--limit", type=int, default=0, help="at most so many images of each set, to try it out")


def ranges_of(arguments: argparse.Namespace) -> detector.Ranges:
  return detector.Ranges(
    arguments.faces,
    arguments.backgrounds,
    arguments.validation_faces,
    arguments.validation_backgrounds,
  )


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
  """All figures of the chosen form."""
  opened = open_weights(arguments.detector)
  opened.check_task("detection")
  own = detector.Photographs(opened, threshold=arguments.threshold, limit=arguments.limit)
  data, ranges = arguments.data, ranges_of(arguments)
  described = {"detector": arguments.detector, "step": opened.step, "threshold": own.threshold}
  if arguments.validation:
    scenes = detector.detect_scenes(
      own, data, ranges.validation_faces, ranges.validation_backgrounds
    )
    return {**described, "thresholds": scenes.thresholds()}
  scenes = detector.detect_scenes(own, data, ranges.faces, ranges.backgrounds)
  figures, _, _ = detector.measure_left_out(own, data, scenes, arguments.classifier)
  return {**described, **figures}


def main() -> None:
  parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
  parser.add_argument("detector", help="name, weights file or workdir, as for `ferjax predict`")
  parser.add_argument("--classifier", help="for the faces that the detector finds in portraits")
  parser.add_argument("--validation", action="store_true", help="print the table of thresholds")
  parser.add_argument("--output", type=pathlib.Path, help="file for all figures, as json")
  add_arguments(parser)
  arguments = parser.parse_args()
  keep_freed_memory()
  enable_compilation_cache()
  try:
    if arguments.output:
      check_writable(arguments.output.parent, [arguments.output.name])
    measured = measure(arguments)
  except (OSError, ValueError) as error:
    sys.exit(str(error))
  print(f"{arguments.detector}, step {measured['step']}, threshold {measured['threshold']:g}\n")
  if arguments.validation:
    print(tables.thresholds(measured["thresholds"]))
  else:
    print(tables.photographs(measured))
  if arguments.output:
    arguments.output.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
  main()
