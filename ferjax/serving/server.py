"""Runs the web application on a socket, until a signal stops it."""

import asyncio
import functools
import math
import signal
import socket
from collections.abc import Callable
from typing import Any, cast

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from ferjax.serving.limits import Limits


def bound_socket(host: str, port: int) -> socket.socket:
  """A socket that is bound to an address, but does not listen yet: connections are refused.

  Args:
    host: name or address; IPv4 or IPv6.
    port: 0 for any that is free.

  Raises:
    ValueError: the port is out of range.
    OSError: the address is not known, not of this machine, or in use.
  """
  if not 0 <= port <= 65535:
    raise ValueError(f"the port is {port}; expected 0 to 65535")
  try:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    bound = socket.socket(family, kind, protocol)
  except (OSError, UnicodeError) as error:
    raise OSError(
      f"the host {host!r} is not known ({error}); expected a name or address"
    ) from error
  try:
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(address)
  except OSError as error:
    bound.close()
    raise OSError(
      f"{host}:{port} cannot be used ({error.strerror}); choose another port, or an address of "
      "this machine"
    ) from error
  return bound


def run(
  app: FastAPI,
  bound: socket.socket,
  limits: Limits,
  *,
  ready: Callable[[], None],
  patience: float | None = None,
) -> None:
  """Serves until SIGINT or SIGTERM; requests that have arrived are still answered.

  Args:
    app: of `ferjax.serving.app.create_app`, or another one.
    bound: of `bound_socket`; closed at the end.
    limits: of the application.
    ready: called when requests are answered.
    patience: seconds that these answers may take; None for those of the limits.
  """
  # uvicorn raises the signals again that stopped it; a service that was stopped has not failed.
  previous = {number: signal.signal(number, _ignore) for number in (signal.SIGINT, signal.SIGTERM)}
  try:
    make_server(app, limits, ready=ready, patience=patience).run([bound])
  finally:
    for number, handler in previous.items():
      signal.signal(number, handler)


def make_server(
  app: FastAPI, limits: Limits, *, ready: Callable[[], None], patience: float | None = None
) -> uvicorn.Server:
  """The server for an application; `should_exit` stops it. Arguments as for `run`."""
  if patience is None:
    patience = limits.upload_timeout + limits.timeout
  protocol = functools.partial(_PunctualProtocol, seconds=limits.upload_timeout)
  config = uvicorn.Config(
    app,
    http=cast(type[asyncio.Protocol], protocol),
    ws="none",
    lifespan="on",
    log_config=None,  # uvicorn's would close the handlers of other libraries
    log_level="error",
    access_log=False,
    proxy_headers=False,
    server_header=False,
    timeout_graceful_shutdown=math.ceil(patience),
  )
  return _Server(config, ready)


def _ignore(number: int, frame: Any) -> None:
  del number, frame


class _Server(uvicorn.Server):
  """Calls a function when it has started."""

  def __init__(self, config: uvicorn.Config, ready: Callable[[], None]):
    super().__init__(config)
    self._ready = ready

  async def startup(self, sockets: list[socket.socket] | None = None) -> None:
    await super().startup(sockets)
    if not self.should_exit:  # a signal during the compilation
      self._ready()


class _PunctualProtocol(H11Protocol):
  """Closes a connection if the head of its next request does not arrive in time.

  uvicorn has no limit for it. The application limits the time of the body.
  """

  def __init__(self, *arguments: Any, seconds: float, **keywords: Any):
    super().__init__(*arguments, **keywords)
    self._seconds = seconds
    self._expiry: asyncio.TimerHandle | None = None

  def connection_made(self, transport: Any) -> None:
    super().connection_made(transport)
    self._await_request()

  def connection_lost(self, exc: Exception | None) -> None:
    self._cancel()
    super().connection_lost(exc)

  def on_response_complete(self) -> None:
    super().on_response_complete()
    self._await_request()

  def _await_request(self) -> None:
    self._cancel()
    self._expiry = self.loop.call_later(self._seconds, self._expire)

  def _cancel(self) -> None:
    if self._expiry is not None:
      self._expiry.cancel()

  def _expire(self) -> None:
    if self.cycle is None or self.cycle.response_complete:
      self.timeout_keep_alive_handler()
