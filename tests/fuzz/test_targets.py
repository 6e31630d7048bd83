"""Inputs of every target: those of the corpus, and changed ones."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz import annotations, images
from fuzz.mutations import mutate, mutate_json
from fuzz.targets import TARGETS, corpus

# Target -> changed inputs. These take 0.2 to 5 ms, those of checkpoints 20 ms.
EXAMPLES = {
  "image": 400,
  "annotations": 400,
  "config": 60,
  "checkpoint_description": 200,
  "checkpoint_files": 60,
  "weights_file": 150,
  "weights_description": 100,
  "state_dict": 200,
  "stablehlo": 150,
  "stablehlo_description": 60,
  "stablehlo_program": 60,
  "onnx_file": 100,
}


def _randoms():
  return st.randoms(use_true_random=False)


@pytest.fixture(scope="module")
def inputs():
  """Target -> the content of its corpus."""
  return {name: [file.read_bytes() for file in corpus(name)] for name in TARGETS}


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus(inputs, name):
  assert inputs[name]
  for data in inputs[name]:
    TARGETS[name].run(data)


@pytest.mark.parametrize("name", TARGETS)
def test_changed_inputs(inputs, name):
  target = TARGETS[name]

  @settings(max_examples=EXAMPLES[name])
  @given(st.sampled_from(inputs[name]), _randoms(), st.booleans())
  def run(data, rng, by_bytes):
    by_structure = target.is_json and not by_bytes
    target.run(mutate_json(data, rng) if by_structure else mutate(data, rng))

  run()


def test_changed_headers_of_images(inputs):
  """Most of a file are pixels, so that changes of the whole rarely meet its header."""

  @settings(max_examples=300)
  @given(st.sampled_from(inputs["image"]), _randoms(), st.integers(8, 200))
  def run(data, rng, length):
    images.decode_image(mutate(data[:length], rng) + data[length:])

  run()


@given(st.sampled_from(list(annotations.LAYOUTS)), st.binary(max_size=60))
def test_annotations_of_any_bytes(layout, content):
  annotations.read_layout(layout, content)


def test_mutations_are_reproducible():
  data = bytes(range(100))
  assert mutate(data, random.Random(3)) == mutate(data, random.Random(3)) != data
