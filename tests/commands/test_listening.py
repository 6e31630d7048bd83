import argparse
import dataclasses
import socket

import pytest

from ferjax.commands.listening import LimitOption, add_address, add_limits, announce, limits_of

OPTIONS = (
  LimitOption("max_bytes", int, "N", "size of a request"),
  LimitOption("timeout", float, "S", "seconds for an answer"),
)


@dataclasses.dataclass(frozen=True)
class Limits:
  max_bytes: int = 7
  timeout: float = 0.5


def test_limits_have_the_defaults_of_their_class(capsys):
  parser = argparse.ArgumentParser()
  add_address(parser.add_argument, port=1234)
  add_limits(parser.add_argument, Limits, OPTIONS)
  default = parser.parse_args([])
  assert (default.host, default.port) == ("127.0.0.1", 1234)
  assert limits_of(default, Limits, OPTIONS) == Limits()
  changed = parser.parse_args(["--max-bytes", "9", "--timeout", "2"])
  assert limits_of(changed, Limits, OPTIONS) == Limits(9, 2.0)
  parser.print_help()
  assert "size of a request (default: 7)" in capsys.readouterr().out


@pytest.mark.parametrize(("host", "warns"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_the_address_is_printed_with_a_warning_if_others_can_reach_it(host, warns, capsys):
  with socket.socket() as bound:
    bound.bind((host, 0))
    announce(bound, what="page", risk="does not encrypt", path="predict")
    port = bound.getsockname()[1]
  printed = capsys.readouterr()
  assert printed.out == f"Ready: http://{host}:{port}/predict\n"
  warning = (
    f"ferjax: warning: everyone who can reach {host} can use this page; it knows no users and "
    "does not encrypt\n"
  )
  assert printed.err == (warning if warns else "")
