"""Measures named weights and writes their model card: Markdown, figures as json, and plots.

  python benchmarks/model_card.py emonext-atto-ferplus --data DATA --ferplus /data/fer2013
  python benchmarks/model_card.py fer-yolo-mamba-nano-scenes --data DATA \\
      --classifier emonext-atto-ferplus

DATA has the photographs that `benchmarks/real_photographs.py` measures detectors on and, for
classifiers, `lfw5/labels.csv`. --ferplus has the tables fer2013.csv and fer2013new.csv as released.
The texts of a card are in `benchmarks/cards/texts/NAME.toml`. After each card, the overview of all
cards of the folder is written again. No image of the data is written, except portraits of the
London set, whose licence allows it.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import real_photographs
from cards import changes, classifier, detector, failures, page, plots
from cards.faces import validation_faces
from crop_robustness import with_and_without_flips

from ferjax._version import __version__
from ferjax.allocator import keep_freed_memory
from ferjax.compilation_cache import enable_compilation_cache
from ferjax.output import check_writable
from ferjax.tasks.classification.plots import plot_reliability
from ferjax.tasks.plots import plot_confusion
from ferjax.trained import TrainedNetwork
from ferjax.weights import WeightsFile, open_weights

_OVERVIEW = "README.md"
Figures = dict[str, Any]
Place = Callable[[str], pathlib.Path]  # "-confusion.png" -> path of a file of the card


def main() -> None:
  arguments = _arguments()
  keep_freed_memory()
  enable_compilation_cache()
  try:
    _write_card(arguments)
  except (OSError, ValueError) as error:
    sys.exit(str(error))


def _arguments() -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
  add = parser.add_argument
  add("name", help="of the weights, and of the card")
  add("--checkpoint", help="measure this file or workdir instead of the known weights")
  add("--ferplus", type=pathlib.Path, help="tables of FER2013 and FER+ (default: DATA/fer2013)")
  add("--classifier", help="of a detector: also measure it on the faces that are found")
  add("--output", type=pathlib.Path, default=pathlib.Path("docs/weights"), help="folder")
  real_photographs.add_arguments(parser)
  return parser.parse_args()


def _write_card(arguments: argparse.Namespace) -> None:
  name, output = arguments.name, arguments.output
  texts = page.read_texts(name)
  opened = open_weights(arguments.checkpoint or name)
  check_writable(output, [f"{name}.md", f"{name}.json", _OVERVIEW])
  output.mkdir(parents=True, exist_ok=True)

  def place(suffix: str) -> pathlib.Path:
    return output / f"{name}{suffix}"

  card = _described(name, opened, arguments)
  if card["task"] == "detection":
    card |= _measure_detector(opened, arguments, place)
    text = page.detector_page(card, texts)
  else:
    card |= _measure_classifier(opened, arguments, place)
    text = page.classifier_page(card, texts)
  place(".json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
  place(".md").write_text(text, encoding="utf-8")
  cards = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(output.glob("*.json"))]
  (output / _OVERVIEW).write_text(page.overview(cards), encoding="utf-8")
  print(place(".md"))


def _described(name: str, opened: TrainedNetwork, arguments: argparse.Namespace) -> Figures:
  """What is known of the weights without measuring."""
  meta = opened.meta
  model = meta["model"]
  return {
    "name": name,
    "task": meta["task"],
    "network": " ".join(model[field] for field in ("name", "size") if field in model),
    "pixels": meta["image_size"],
    "grey": meta["grey"],
    "classes": list(meta["class_names"]),
    "parameters": sum(x.size for x in jax.tree.leaves(opened.variables()["params"])),
    "megabytes": round(opened.size / 1e6, 1) if isinstance(opened, WeightsFile) else None,
    "settings": dict(opened.settings),
    "step": meta["step"],
    "epoch": round(meta["epoch"], 2),
    "limit": arguments.limit,
    "ferjax": __version__,
    "command": _command(name, arguments),
  }


def _command(name: str, arguments: argparse.Namespace) -> str:
  """The command of the card, with names in capitals instead of paths."""
  options = [f"python benchmarks/model_card.py {name} --data DATA"]
  options += ["--ferplus FER2013"] if arguments.ferplus else []
  if arguments.classifier:
    options.append(f"--classifier {pathlib.PurePath(arguments.classifier).stem}")
  return " ".join(options)


def _measure_classifier(
  opened: TrainedNetwork, arguments: argparse.Namespace, place: Place
) -> Figures:
  classifiers, flip = with_and_without_flips(opened, 64), opened.settings.get("flip", False)
  predictor = classifiers[flip]
  data, limit = arguments.data, arguments.limit
  faces = validation_faces(arguments.ferplus or data / "fer2013", predictor.class_names)
  _say(f"{len(faces.truth)} validation faces, {int(faces.twins.sum())} with a twin in training")
  validation = classifier.measure_validation(classifiers, faces.some(limit))
  own = validation.metrics(flip=flip)
  plot_confusion(own.confusion_matrix(), predictor.class_names, place("-confusion.png"))
  plot_reliability(own, place("-reliability.png"))
  _say("news photographs")
  news = classifier.measure_news(classifiers, data / "lfw5" / "labels.csv", limit)
  _say("changed faces")
  changed = classifier.measure_changes(classifiers, validation)
  plots.plot_changes(changed, changes.OF_FACES, page.CLASSIFIER_CHANGES, place("-robustness.png"))
  portraits = detector.london_of(data, limit)
  predictions = classifier.predict_portraits(predictor, portraits)
  return {
    "validation": validation.rows(),
    "news": news,
    "changes": changed,
    "portraits": classifier.summarize_portraits(predictions, portraits),
    **_failures(predictions, portraits, place),
  }


def _measure_detector(
  opened: TrainedNetwork, arguments: argparse.Namespace, place: Place
) -> Figures:
  own = detector.Photographs(opened, threshold=arguments.threshold, limit=arguments.limit)
  data, ranges = arguments.data, real_photographs.ranges_of(arguments)
  _say("left-out photographs")
  left_out = detector.detect_scenes(own, data, ranges.faces, ranges.backgrounds)
  figures, predictions, portraits = detector.measure_left_out(
    own, data, left_out, arguments.classifier
  )
  _say("validation photographs")
  validation = detector.detect_scenes(
    own, data, ranges.validation_faces, ranges.validation_backgrounds
  ).thresholds()
  parts = {"validation": validation["rows"], "left out": left_out.thresholds()["rows"]}
  plots.plot_thresholds(parts, own.threshold, place("-thresholds.png"))
  _say("changed photographs")
  changed = detector.measure_changes(own, data, ranges.faces)
  plots.plot_changes(
    changed, changes.OF_PHOTOGRAPHS, page.DETECTOR_CHANGES, place("-robustness.png")
  )
  return {
    "threshold": own.threshold,
    **figures,
    "thresholds": validation,
    "changes": changed,
    **_failures(predictions, portraits, place),
  }


def _failures(predictions: Any, portraits: Any, place: Place) -> Mapping[str, int]:
  """Counts wrong portraits, and writes a sheet of them."""
  wrong, sheet = failures.failures(predictions, portraits), place("-failures.jpg")
  if wrong:
    plots.plot_portraits(failures.drawn(predictions, portraits, wrong), sheet)
  else:
    sheet.unlink(missing_ok=True)  # of earlier weights
  return {"failures": len(wrong), "num_portraits": len(portraits)}


def _say(text: str) -> None:
  print(text, flush=True)


if __name__ == "__main__":
  main()
