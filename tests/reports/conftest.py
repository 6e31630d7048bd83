"""Evaluations without any network, and a reader of HTML pages."""

import html.parser

import numpy as np
import pytest

from ferjax.reports.predictions import Predictions, record_ids
from ferjax.tasks.classification.metrics import ClassificationMetrics
from ferjax.tasks.detection.metrics import DetectionMetrics
from ferjax.tasks.detection.voc import ImageResult

NAMES = ("<b>joy</b>", 'a "quote" & more', "中性")


class Images:
  """Records with names that HTML must not take for markup."""

  def __init__(self, count, *, folder="train", side=24):
    self._count, self._folder, self._side = count, folder, side

  def __len__(self):
    return self._count

  def __getitem__(self, index):
    rng = np.random.default_rng(index)
    return {"image": rng.integers(0, 256, (self._side, self._side, 3), np.uint8)}

  def origin(self, index):
    return f"<script>{self._folder}</script>\x1b[31m/é\udce9 {index}.jpg"


def classifier(seed=0, count=40, names=NAMES):
  rng = np.random.default_rng(seed)
  truth = np.random.default_rng(99).integers(0, len(names), count)
  guess = rng.integers(0, len(names), count)
  predicted = np.where(rng.random(count) < 0.7, truth, guess)
  probability = np.float32(rng.uniform(0.4, 1, count)).astype(np.float64)
  values = {"truth": truth, "predicted": predicted, "probability": probability}
  return ClassificationMetrics.from_arrays(names, {"index": np.arange(count), **values})


def detector(seed=0, count=12, names=NAMES):
  """One face in the middle of each image; some are found, some with the wrong class."""
  rng, truth = np.random.default_rng(seed), np.random.default_rng(98)
  metrics = DetectionMetrics(names)
  for index in range(count):
    box = np.array([[4.0, 4, 20, 20]])
    label = truth.integers(0, len(names), 1)
    found = int(rng.random() < 0.8)
    guess = label if rng.random() < 0.6 else rng.integers(0, len(names), 1)
    metrics.index.append(index)
    metrics.images.append(
      ImageResult(
        np.concatenate([box + 0.5, [[0.0, 0, 5, 5]]])[1 - found :],
        np.float32([0.9, rng.uniform(0.1, 0.7)]).astype(np.float64)[1 - found :],
        np.concatenate([guess, [0]])[1 - found :],
        box,
        label,
      )
    )
  return metrics


def evaluation(metrics, source, **values):
  ids = record_ids(source, metrics.arrays()["index"])
  about = {"checkpoint": "run/checkpoints/20", "step": 20, "epoch": 2.0, "split": "val"}
  return Predictions(metrics, metrics.compute(), ids, **{**about, "selection": "", **values})


@pytest.fixture(scope="session")
def made():
  """The functions of this file, for tests that do not import it."""

  class Made:
    names = NAMES
    Images = Images
    classifier = staticmethod(classifier)
    detector = staticmethod(detector)
    evaluation = staticmethod(evaluation)

  return Made


class Page(html.parser.HTMLParser):
  """Tables by the heading above them, image sources, and texts by their class."""

  VOID = ("meta", "img", "br")

  def __init__(self, text):
    super().__init__()
    self.tables, self.sources, self.headings, self.texts = {}, [], [], []
    self.tags, self._open = [], []
    self.feed(text)
    self.close()
    assert self._open == []

  def handle_starttag(self, tag, attributes):
    values = dict(attributes)
    self.tags.append(tag)
    if tag not in self.VOID:
      self._open.append((tag, values.get("class", "")))
    for name in ("src", "href"):
      if name in values:
        self.sources.append(values[name])
    if tag in ("h1", "h2"):
      self.headings.append("")
    if tag == "table":
      self.tables.setdefault(self.headings[-1], []).append([])
    if tag == "tr":
      self.tables[self.headings[-1]][-1].append([])
    if tag in ("td", "th"):
      self.tables[self.headings[-1]][-1][-1].append("")

  def handle_endtag(self, tag):
    assert self._open.pop()[0] == tag

  def handle_data(self, data):
    tags = [tag for tag, _ in self._open]
    if tags and tags[-1] in ("h1", "h2"):
      self.headings[-1] += data
    elif tags and tags[-1] in ("td", "th"):
      self.tables[self.headings[-1]][-1][-1][-1] += data
    if tags and tags[-1] != "style":
      self.texts.append((self._open[-1][1], data))

  def with_class(self, name):
    return [text for kind, text in self.texts if kind == name]


@pytest.fixture(scope="session")
def read_page():
  """Parses the text of a page; the tags must be balanced."""
  return Page
