"""Shared by the commands that listen on a port: address, limits, and what they print then."""

import argparse
import ipaddress
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from ferjax.commands.options import Add

Limits = TypeVar("Limits")


class LimitOption(NamedTuple):
  """An option for a field of a class of limits; `text` describes it."""

  name: str
  kind: Callable[[str], Any]
  metavar: str
  text: str


def add_address(add: Add, *, port: int) -> None:
  """Adds `--host` and `--port`; `port` is the default."""
  add("--host", default="127.0.0.1", help="name or address to listen on (default: %(default)s)")
  add("--port", type=int, default=port, help="port; 0 for any free one (default: %(default)s)")


def add_limits(add: Add, limits: type, options: Sequence[LimitOption]) -> None:
  """Adds an option for each limit, with the default of the class `limits`."""
  for option in options:
    add(
      f"--{option.name.replace('_', '-')}",
      type=option.kind,
      default=getattr(limits, option.name),
      metavar=option.metavar,
      help=f"{option.text} (default: %(default)s)",
    )


def limits_of(
  arguments: argparse.Namespace, limits: type[Limits], options: Sequence[LimitOption]
) -> Limits:
  """The limits that the arguments give; raises a ValueError for one that is out of range."""
  return limits(**{option.name: getattr(arguments, option.name) for option in options})


def announce(bound: socket.socket, *, what: str, risk: str, path: str = "") -> None:
  """Prints the address, and a warning if other machines can reach it.

  Args:
    bound: listens.
    what: is offered, such as "service".
    risk: what those who reach it should know.
    path: of the address, without the first slash.
  """
  host, port = bound.getsockname()[:2]
  if not ipaddress.ip_address(host).is_loopback:
    print(
      f"ferjax: warning: everyone who can reach {host} can use this {what}; it knows no users and "
      f"{risk}",
      file=sys.stderr,
    )
  print(f"Ready: http://{f'[{host}]' if ':' in host else host}:{port}/{path}", flush=True)
