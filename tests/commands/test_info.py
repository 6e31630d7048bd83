"""Output and errors of `ferjax info`."""

import json

import pytest

from ferjax.commands.main import main
from ferjax.models.cost import CompiledCost, Cost


@pytest.fixture
def info(capsys):
  """Arguments -> the printed lines, split into words."""

  def call(*arguments):
    assert main(["info", *arguments]) == 0
    return [line.split() for line in capsys.readouterr().out.splitlines()]

  return call


def test_parts(info):
  lines = info("fermam", "--size", "base")
  assert " ".join(lines[0]) == "fermam: 1 image of 224 x 224 pixels, 7 classes"
  parts = {line[0]: line[1:] for line in lines[2:-1]}
  assert list(parts) == [
    *("image", "image_proj", "conv_ssm", "landmark", "fusion", "gate", "head", "total"),
  ]
  assert parts["gate"][:3] == ["525,312", "525,312", "0.52"]
  total = parts["total"]
  assert total == ["26,874,791", "26,874,791", "5,925.03", "2.57", "11,868.08", "9.41"]
  assert " ".join(lines[-1]).startswith("The released checkpoint has 13,136,896 more parameters")


@pytest.fixture
def free(monkeypatch):
  """Fakes a cost of a million parameters per letter of variant and mode."""

  def cost_by_part(model, shape):
    letters = f"{model.variant}{getattr(model, 'mode', '')}"
    return {"all": Cost(parameters=10**6 * len(letters))}

  monkeypatch.setattr("ferjax.models.cost.cost_by_part", cost_by_part)


def test_sizes_and_variations_of_their_defaults(info, free):
  _, header, *lines, _ = info("fermam")
  assert header[:4] == ["size", "variant", "mode", "parameters"]
  assert [line[:4] for line in lines] == [
    [size, *choices]
    for size in ("nano", "tiny", "base")
    for choices in (
      ("corrected", "both", "13,000,000"),
      ("released", "both", "12,000,000"),
      ("corrected", "conv_only", "18,000,000"),
      ("corrected", "ssm_only", "17,000,000"),
    )
  ]


def test_one_variant_of_all_sizes(info, free):
  _, _, *lines = info("fer_yolo_mamba", "--variant", "released")
  assert [line[:2] for line in lines] == [
    [size, "released"] for size in ("nano", "tiny", "s", "m", "l", "x")
  ]


def test_variants_with_equal_cost_share_a_line(info, monkeypatch):
  monkeypatch.setattr("ferjax.models.cost.cost_by_part", lambda model, shape: {"all": Cost(1)})
  _, _, *lines = info("emonext")
  assert [line[:2] for line in lines] == [
    [size, "corrected"] for size in ("atto", "femto", "tiny", "small", "base", "large", "xlarge")
  ]


def test_all_models(info, free):
  titles = [line[0] for line in info() if line and line[0].endswith(":")]
  assert titles == ["fer_yolo_mamba:", "emonext:", "fermam:"]


def test_json_and_options(capsys):
  arguments = ["fermam", "--size", "nano", "--mode", "conv_only", "--variant", "released"]
  options = ["--image-size", "64", "--num-classes", "3", "--batch-size", "2", "--json"]
  assert main(["info", *arguments, *options]) == 0
  (row,) = json.loads(capsys.readouterr().out)["networks"]
  parts, total = row.pop("parts"), row.pop("total")
  assert row == {
    "model": "fermam",
    "size": "nano",
    "variant": "released",
    "mode": "conv_only",
    "image_size": 64,
    "num_classes": 3,
    "batch_size": 2,
    "released_only": 0,
    "compiled": None,
  }
  assert parts["head"] == {
    "parameters": 128 * 3 + 3,
    "executed": 128 * 3 + 3,
    "multiply_adds": 2 * 128 * 3,
    "scan_updates": 0,
    "activations": 2 * 3,
    "flops": 2 * 2 * 128 * 3,
  }
  assert total == {name: sum(part[name] for part in parts.values()) for name in total}


def test_compiled_costs(info, free, monkeypatch):
  shapes = []

  def compiled_cost(model, shape):
    shapes.append((model.size, shape))
    return CompiledCost(1234.56e6, 2_500_000, 30_000_000)

  monkeypatch.setattr("ferjax.models.cost.compiled_cost", compiled_cost)
  options = ["fermam", "--variant", "corrected", "--mode", "both", "--image-size", "32"]
  _, header, *lines, _ = info(*options, "--compile")
  assert header[-4:] == ["XLA", "FLOPs/M", "memory/MB", "gradient/MB"]
  assert [line[-3:] for line in lines] == [["1,234.6", "2.5", "30.0"]] * 3
  assert shapes == [(size, (1, 32, 32, 3)) for size in ("nano", "tiny", "base")]
  *_, compiled, _ = info(*options, "--size", "base", "--compile")
  expected = "Compiled: XLA FLOPs/M 1,234.6, memory/MB 2.5, gradient/MB 30.0"
  assert " ".join(compiled) == expected


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ("nope", "unknown model 'nope'; known: fer_yolo_mamba, emonext, fermam"),
    ("emonext --size s", "unknown size 's' of emonext; known: atto, femto, tiny"),
    ("fermam --variant fixed", "unknown variant 'fixed' of fermam; known: corrected, released"),
    ("fermam --mode ssm", "unknown mode 'ssm' of fermam; known: both, conv_only, ssm_only"),
    ("emonext --mode both", "--mode is 'both', but emonext has none; omit it"),
    ("--size s", "--size is 's', but no model is named; known: fer_yolo_mamba"),
    ("emonext --image-size 100", "--image-size is 100; expected a multiple of 32 pixels"),
    ("emonext --image-size 0", "--image-size is 0; expected a multiple of 32 pixels, such as 32"),
    ("emonext --image-size -32", "--image-size is -32; expected a multiple of 32 pixels"),
    ("emonext --batch-size 0", "--batch-size is 0; expected at least 1"),
    ("emonext --num-classes 0", "num_classes is 0; it must be at least 1"),
  ],
)
def test_wrong_input(arguments, message, capsys):
  assert main(["info", *arguments.split()]) == 2
  captured = capsys.readouterr()
  assert captured.err.startswith(f"ferjax: error: {message}")
  assert captured.out == ""
