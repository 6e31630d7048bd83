import json

import numpy as np
import pytest
from cards import changes, counting, page, tables
from crop_robustness import collect

NAMES = ("neutral", "happiness")


def described(**fields):
  return {
    "name": "emonext-atto-ferplus",
    "network": "emonext atto",
    "pixels": 64,
    "grey": True,
    "classes": NAMES,
    "parameters": 1234567,
    "megabytes": 6.5,
    "settings": {"crop_margin": 0.1},
    "step": 10,
    "epoch": 2.5,
    "limit": 0,
    "ferjax": "1.0",
    "command": "python card",
    "failures": 1,
    "num_portraits": 2,
    **fields,
  }


def classifier_card():
  probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.7, 0.3]])
  metrics = collect(probabilities, np.array([0, 1, 1, 0]), NAMES).compute()
  difference = {"difference": -0.01, "difference_low": -0.02, "difference_high": 0.0}
  found = counting.proportion(3, 4)
  return described(
    task="classification",
    validation=[{"twins": True, "flip": False, **metrics}],
    news=[{"crop": "as in the set", "flip": False, **metrics, **difference}],
    changes=[
      {"change": kind, "level": level, **metrics}
      for kind, change in changes.OF_FACES.items()
      for level in change.levels
    ],
    portraits={"named": dict.fromkeys(NAMES, found), "smiling_is_happier": found},
  )


def test_the_card_of_a_classifier_has_its_figures():
  card = json.loads(json.dumps(classifier_card(), allow_nan=False))
  text = page.classifier_page(card, page.read_texts(card["name"]))
  assert text.startswith("# emonext-atto-ferplus\n")
  assert "| parameters | 1,234,567 |" in text
  assert "| crop_margin | 0.1 |\n| file | 6.5 MB |" in text
  assert "| happiness | 2 | 1.000 | 0.500 (0.095 to 0.905) | 0.667 |" in text
  assert "3 of 4: 0.750 (0.301 to 0.954)" in text
  assert "![Known failures](emonext-atto-ferplus-failures.jpg)" in text
  assert "On 1 of the 2 portraits" in text
  assert "trial" not in text
  assert "{" not in text
  assert "A trial: at most 5 images" in page.classifier_page(
    {**card, "limit": 5, "failures": 0}, page.read_texts(card["name"])
  )


def test_the_overview_links_the_cards():
  text = page.overview([classifier_card()])
  assert "| [emonext-atto-ferplus](emonext-atto-ferplus.md) | emonext atto | validation" in text
  assert text.endswith("| 64 | 1,234,567 | 2 |\n")


def test_the_overview_has_the_figures_with_the_settings_of_the_weights():
  card = classifier_card()
  for rows in (card["validation"], card["news"]):
    rows.append({**rows[0], "flip": True, "accuracy": 0.125, "balanced_accuracy": 0.375})
  assert "accuracy 0.750 (" in page.overview([card])
  card["settings"]["flip"] = True
  text = page.overview([card])
  assert "validation accuracy 0.125 (" in text
  assert "news faces, balanced accuracy 0.375 (" in text


def test_the_classes_and_the_calibration_have_the_settings_of_the_weights():
  card = classifier_card()
  other = collect(np.array([[0.2, 0.8], [0.1, 0.9]]), np.array([0, 1]), NAMES).compute()
  card["validation"].append({"twins": True, "flip": True, **other})
  ece = card["validation"][0]["ece"]
  texts = page.read_texts(card["name"])
  assert f"own settings it is {ece:.3f}" in page.classifier_page(card, texts)
  card["news"].append({**card["news"][0], "flip": True})
  card["settings"]["flip"] = True
  text = page.classifier_page(card, texts)
  # One prediction is right with 0.9, one wrong with 0.8: (0.1 + 0.8) / 2.
  assert "own settings it is 0.450" in text
  assert "| happiness | 1 | 0.500 | 1.000 (" in text


def test_every_card_has_all_texts():
  for path in page.TEXTS.glob("*.toml"):
    if path.stem != page.SHARED:
      assert page.read_texts(path.stem).data


def test_unknown_weights_have_no_texts():
  with pytest.raises(ValueError, match="no texts for 'other'"):
    page.read_texts("other")


def test_the_table_of_thresholds_names_the_lowest():
  row = dict.fromkeys(("false boxes beside faces", "backgrounds with false boxes"), 1)
  rows = [{"threshold": 0.35, "recall": 0.5, **row, "false boxes per background": 0.25}]
  measured = {"faces": 2, "backgrounds": 4, "rows": rows, "lowest": None}
  assert "| 0.35 | 0.500 | 1 | 1 | 0.250 |\n\n" in tables.thresholds(measured)
  assert tables.thresholds(measured).endswith("none of these.")
  assert tables.thresholds({**measured, "lowest": 0.4}).endswith("0.40.")
