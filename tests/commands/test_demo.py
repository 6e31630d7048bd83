import importlib.util

import pytest

from ferjax.commands.main import main


def test_a_missing_package(monkeypatch, capsys):
  found = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util, "find_spec", lambda name: None if name == "gradio" else found(name)
  )
  assert main(["demo"]) == 2
  message = capsys.readouterr().err
  assert "ferjax demo needs gradio, which cannot be imported" in message
  assert "pip install 'ferjax[demo]'" in message


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--queue-size", "0"], "queue_size is 0; expected at least 1"),
    (["--film-seconds", "inf"], "film_seconds is inf; expected seconds above 0"),
    (["--host", "not a host"], "the host 'not a host' is not known"),
    (["--port", "0", "--checkpoint", "nowhere"], "nowhere"),
    (["--port", "70000"], "the port is 70000; expected 0 to 65535"),
  ],
)
def test_wrong_usage(monkeypatch, arguments, message, capsys):
  # The allocator's settings would remain for the other tests; the environment takes precedence.
  monkeypatch.setenv("MALLOC_ARENA_MAX", "8")
  assert main(["demo", *arguments]) == 2
  captured = capsys.readouterr()
  assert captured.err.startswith("ferjax: error: ")
  assert message in captured.err


def test_the_defaults_are_those_of_the_limits(capsys):
  with pytest.raises(SystemExit):
    main(["demo", "--help"])
  text = capsys.readouterr().out
  for option in ("--max-bytes", "--film-seconds", "--queue-size", "--checkpoint", "--detector"):
    assert option in text
  assert "(default: 127.0.0.1)" in text
  assert "ferjax demo --port 8080" in text
