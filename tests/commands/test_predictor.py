import argparse

import pytest

from ferjax.commands.predictor import default_batch_size


@pytest.mark.parametrize(
  ("given", "expected"),
  [
    ({}, 2),  # the weights that come with ferjax
    ({"checkpoint": "classifier"}, 8),
    ({"exported": "classifier.onnx"}, 8),
    ({"checkpoint": "classifier", "detector": "detector"}, 2),
  ],
)
def test_few_images_in_a_batch_with_a_detector_on_a_cpu(given, expected):
  options = {"exported": None, "checkpoint": None, "detector": None} | given
  assert default_batch_size(argparse.Namespace(**options)) == expected
