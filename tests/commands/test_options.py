import argparse

import pytest

from ferjax.commands.options import add_image_options, parse_step


def test_steps():
  assert [parse_step(text) for text in ("best", "latest", "0", "120")] == ["best", "latest", 0, 120]
  for text in ("", "newest", "-1", "1.5", "²"):
    with pytest.raises(ValueError, match="expected a number, 'best' or 'latest'"):
      parse_step(text)


def test_image_options(capsys):
  parser = argparse.ArgumentParser()
  add_image_options(parser.add_argument, checkpoint=None, output=None)
  needed = ["a.jpg", "b", "--checkpoint", "c", "--output", "o"]
  arguments = parser.parse_args([*needed, "--step", "7"])
  assert (arguments.paths, arguments.step, arguments.on_bad_image) == (["a.jpg", "b"], 7, "error")
  with pytest.raises(SystemExit, match="2"):
    parser.parse_args([*needed, "--step", "x"])
  assert "the step is 'x'; expected a number, 'best' or 'latest'" in capsys.readouterr().err
