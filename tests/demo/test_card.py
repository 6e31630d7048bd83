from ferjax.demo.card import model_card
from ferjax.weights import WeightsFile

META = {
  "model": {"name": "net", "size": "nano", "dtype": "float32"},
  "class_names": ["happiness", "anger"],
  "image_size": 64,
  "grey": True,
  "step": 7,
  "data": "faces | votes",
  "licence": "<b>free</b>",
  "selection": "",
  "metrics": {
    "validation": {
      "num_images": 1234.0,
      "accuracy": 0.8368,
      "accuracy_low": 0.82,
      "accuracy_high": 0.85,
      "recall/anger": 0.5,
      "recall_low/anger": 0.25,
      "recall_high/anger": 0.75,
      "balanced_accuracy": 0.62,
      "loss": 9.0,
    }
  },
}


def test_the_card_says_what_the_weights_say():
  card = model_card(
    {"Expressions": WeightsFile("mine", META, {}, 0)}, {"flip": True, "margin": [0.1, 0.0]}
  )
  lines = card.splitlines()
  for line in (
    "### Expressions: mine",
    "| network | net nano |",
    "| input | 64 pixels, grey |",
    "| classes | happiness, anger |",
    "| step | 7 |",
    "| training data | faces &#124; votes |",
    "| terms | &lt;b>free&lt;/b> |",
    "| validation, 1,234 images | value | 95 % interval |",
    "| accuracy | 0.837 | 0.820 to 0.850 |",
    "| balanced accuracy | 0.620 |  |",
    "| recall, anger | 0.500 | 0.250 to 0.750 |",
    "| flip | True |",
    "| margin | 0.1, 0.0 |",
    "### What they are not for",
  ):
    assert line in lines, line
  assert "selection" not in card
  assert "loss" not in card


def test_weights_without_measurements():
  meta = {name: x for name, x in META.items() if name not in ("metrics", "data", "licence")}
  card = model_card({"Faces": WeightsFile("runs/mine", meta, {}, 0)}, {})
  assert "The weights have no measurements with them." in card
  assert "### Settings" not in card
