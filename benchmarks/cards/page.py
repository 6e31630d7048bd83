"""The Markdown of model cards, from measured figures and from the texts that nobody can compute."""

import dataclasses
import pathlib
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from cards import changes, photographs, tables
from ferjax.weights import DEFAULT_DETECTOR

TEXTS = pathlib.Path(__file__).parent / "texts"
SHARED = "shared"
_FIELDS = ("summary", "data", "recipe", "command", "limits")
CLASSIFIER_CHANGES = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy"}
DETECTOR_CHANGES = {"ap50": "AP@0.5", "recall": "recall at the default threshold"}


@dataclasses.dataclass(frozen=True)
class Texts:
  """The texts of one card, and those of all cards."""

  own: Mapping[str, Any]
  shared: Mapping[str, Mapping[str, str]]

  @property
  def data(self) -> str:
    return "\n\n".join(self.shared["data"][key].strip() for key in self.own["data"])

  def figures(self, key: str, values: Mapping[str, Any]) -> str:
    """The explanation of some figures, with the values that it names."""
    return self.shared["figures"][key].strip().format_map(values)


def read_texts(name: str) -> Texts:
  """The texts of the weights `name`.

  Raises:
    ValueError: there are none, or a field is missing.
  """
  known = sorted(path.stem for path in TEXTS.glob("*.toml") if path.stem != SHARED)
  if name not in known:
    raise ValueError(f"no texts for {name!r}; expected a file of {TEXTS}: {', '.join(known)}")
  own, shared = (
    tomllib.loads((TEXTS / f"{stem}.toml").read_text(encoding="utf-8")) for stem in (name, SHARED)
  )
  if missing := [field for field in _FIELDS if field not in own]:
    raise ValueError(f"{TEXTS / name}.toml has no {', '.join(missing)}")
  return Texts(own, shared)


def classifier_page(card: Mapping[str, Any], texts: Texts) -> str:
  """The card of a classifier.

  Args:
    card: as written to the json file.
    texts: of the card.
  """
  usage = f'"{card["name"]}", detector="{DEFAULT_DETECTOR}"'
  return _page(
    _head(card, texts, usage, f" --detector {DEFAULT_DETECTOR}"),
    {
      "Data, terms and recipe": _training(texts),
      "Accuracy on validation faces": _validation(card, texts),
      "Other cameras and crops": _news(card, texts),
      "Robustness": _changes(card, texts, "classifier", changes.OF_FACES, CLASSIFIER_CHANGES),
      "Portraits, and known failures": _portraits(card, texts),
      **_end(card, texts),
    },
  )


def detector_page(card: Mapping[str, Any], texts: Texts) -> str:
  """The card of a detector; see `classifier_page`."""
  return _page(
    _head(card, texts, f'"{card["name"]}"', ""),
    {
      "Data, terms and recipe": _training(texts),
      "Faces in photographs": [texts.figures("left_out", card), tables.photographs(card)],
      "Thresholds": [
        texts.figures("thresholds", card),
        tables.thresholds(card["thresholds"]),
        _image(card, "Recall and false boxes", "-thresholds.png"),
      ],
      "Robustness": _changes(card, texts, "detector", changes.OF_PHOTOGRAPHS, DETECTOR_CHANGES),
      "Known failures": _failures(card, texts),
      **_end(card, texts),
    },
  )


def overview(cards: Sequence[Mapping[str, Any]]) -> str:
  """A table of all cards, from their json files."""
  header = ("weights", "network", "measured", "pixels", "parameters", "classes")
  rows = [
    (
      f"[{card['name']}]({card['name']}.md)",
      card["network"],
      _headline(card),
      str(card["pixels"]),
      f"{card['parameters']:,}",
      str(len(card["classes"])),
    )
    for card in cards
  ]
  return (
    "# Named weights\n\nEach name links a card: data and terms, recipe, figures with intervals, "
    "limits. `benchmarks/model_card.py` measures them and writes the cards and this table. Figures "
    "here are of prediction with the weights' own settings.\n\n"
    f"{tables.table(header, rows, text_columns=3)}\n"
  )


def _headline(card: Mapping[str, Any]) -> str:
  if card["task"] == "detection":
    faces = tables.metric(card["faces"], "ap50")
    return f"AP@0.5 of faces in photographs {faces}"
  whole, news = _own(card, "validation"), _own(card, "news")[:1]
  parts = [f"validation accuracy {tables.metric(whole[0], 'accuracy')}"]
  parts += [f"news faces, balanced accuracy {tables.metric(x, 'balanced_accuracy')}" for x in news]
  return "; ".join(parts)


def _own(card: Mapping[str, Any], measured: str) -> list[Mapping[str, Any]]:
  """The rows with the flips of the weights' own settings; those of all faces come first."""
  flip = card["settings"].get("flip", False)
  return [row for row in card[measured] if row["flip"] == flip]


def _page(head: Sequence[str], sections: Mapping[str, Sequence[str]]) -> str:
  """A page of paragraphs; sections without any are left out."""
  parts = list(head)
  for title, paragraphs in sections.items():
    parts += [f"## {title}", *paragraphs] if paragraphs else []
  return "\n\n".join(parts) + "\n"


def _head(card: Mapping[str, Any], texts: Texts, arguments: str, option: str) -> list[str]:
  facts = [
    ("network", card["network"]),
    ("input", f"{card['pixels']} pixels{', grey' if card['grey'] else ''}"),
    ("classes", ", ".join(card["classes"])),
    ("parameters", f"{card['parameters']:,}"),
    ("training", f"{card['epoch']:g} epochs, {card['step']:,} steps"),
    *((name, str(value)) for name, value in card["settings"].items()),
  ]
  if card["megabytes"]:
    facts.append(("file", f"{card['megabytes']:g} MB"))
  limit = card["limit"]
  return [
    f"# {card['name']}",
    texts.own["summary"].strip(),
    *([f"**A trial: at most {limit} images of each set were measured.**"] if limit else []),
    tables.table(("property", "value"), facts, text_columns=2),
    "```python\nimport ferjax\n\n"
    f"predictor = ferjax.load_predictor({arguments})\n"
    'faces = predictor.predict(["photo.jpg"])[0].faces\n```',
    f"```\nferjax predict photo.jpg --checkpoint {card['name']}{option}\n```",
  ]


def _training(texts: Texts) -> list[str]:
  recipe, command = (texts.own[field].strip() for field in ("recipe", "command"))
  licence = texts.shared["terms"]["licence"].strip()
  return [texts.data, licence, recipe, f"```\n{command}\n```"]


def _validation(card: Mapping[str, Any], texts: Texts) -> list[str]:
  header = ("faces", "flips averaged", "number", "accuracy", "balanced accuracy", "macro F1", "ECE")
  rows = [
    (
      "all" if row["twins"] else "without a twin in training",
      _yes(row["flip"]),
      f"{row['num_images']:.0f}",
      *(tables.metric(row, key) for key in ("accuracy", "balanced_accuracy", "macro_f1")),
      f"{row['ece']:.3f}",
    )
    for row in card["validation"]
  ]
  own = _own(card, "validation")[0]
  labels = "FER+'s majority labels" if len(card["classes"]) > 7 else "its own labels"
  return [
    texts.figures("validation", {"labels": labels}),
    tables.table(header, rows, text_columns=2),
    texts.figures("by_class", {}),
    _by_class(own, card["classes"]),
    _image(card, "Confusion matrix", "-confusion.png"),
    texts.figures("calibration", own),
    _image(card, "Reliability", "-reliability.png"),
  ]


def _by_class(metrics: Mapping[str, float], names: Sequence[str]) -> str:
  rows = [
    (
      name,
      f"{metrics[f'count/{name}']:.0f}",
      f"{metrics[f'precision/{name}']:.3f}",
      tables.interval(
        metrics[f"recall/{name}"], metrics[f"recall_low/{name}"], metrics[f"recall_high/{name}"]
      ),
      f"{metrics[f'f1/{name}']:.3f}",
    )
    for name in names
    if metrics[f"count/{name}"]
  ]
  return tables.table(("class", "faces", "precision", "recall", "F1"), rows)


def _news(card: Mapping[str, Any], texts: Texts) -> list[str]:
  header = ("crop", "flips averaged", "balanced accuracy", "its change by the crop", "accuracy")
  rows = [
    (
      row["crop"],
      _yes(row["flip"]),
      tables.metric(row, "balanced_accuracy"),
      f"{row['difference']:+.3f} ({row['difference_low']:+.3f} to {row['difference_high']:+.3f})",
      tables.metric(row, "accuracy"),
    )
    for row in card["news"]
  ]
  own = _own(card, "news")[0]
  recalls = ", ".join(
    f"{key.removeprefix('recall/')} {value:.2f}"
    for key, value in own.items()
    if key.startswith("recall/")
  )
  explained = texts.figures("news", {"number": own["num_images"], "recalls": recalls})
  return [explained, tables.table(header, rows, text_columns=2)]


def _changes(
  card: Mapping[str, Any],
  texts: Texts,
  task: str,
  kinds: Mapping[str, changes.Change],
  shown: Mapping[str, str],
) -> list[str]:
  return [
    texts.figures(f"{task}_changes", card),
    _image(card, "Robustness", "-robustness.png"),
    tables.changed(card["changes"], kinds, shown),
  ]


def _portraits(card: Mapping[str, Any], texts: Texts) -> list[str]:
  london = card["portraits"]
  rows = [
    (f"{label} portraits named so", tables.proportion(share))
    for label, share in london["named"].items()
  ]
  happier = tables.proportion(london["smiling_is_happier"])
  rows.append(("pairs whose smiling portrait scores higher for happiness", happier))
  table = tables.table(("measured", "value"), rows)
  return [texts.figures("portraits", card), table, *_failures(card, texts)]


def _failures(card: Mapping[str, Any], texts: Texts) -> list[str]:
  if not card["failures"]:
    return [texts.figures("no_failures", card)]
  picture = _image(card, "Known failures", "-failures.jpg")
  return [texts.figures("failures", card), picture, f"{photographs.LONDON_CREDIT}."]


def _end(card: Mapping[str, Any], texts: Texts) -> dict[str, list[str]]:
  figures = f"[{card['name']}.json]({card['name']}.json)"
  return {
    "Limits": [texts.own["limits"].strip()],
    "What it must not be used for": [texts.shared["terms"]["not_for"].strip()],
    "How this page was made": [
      f"```\n{card['command']}\n```",
      f"ferjax {card['ferjax']}. All figures are in {figures}.",
    ],
  }


def _image(card: Mapping[str, Any], title: str, suffix: str) -> str:
  return f"![{title}]({card['name']}{suffix})"


def _yes(value: bool) -> str:
  return "yes" if value else "no"
