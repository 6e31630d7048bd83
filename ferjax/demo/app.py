"""The web application of `ferjax demo`: the page, and what protects it."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

from absl import logging
from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ferjax._version import __version__
from ferjax.demo.answers import Answers
from ferjax.demo.limits import DemoLimits
from ferjax.demo.markup import STYLE
from ferjax.demo.page import make_page
from ferjax.demo.uploads import Uploads, upload_folder
from ferjax.inference.base import ImagePredictor
from ferjax.inference.explanation.explainer import Explainer
from ferjax.inference.explanation.two_stage import explainer_of

_EXPLAINED_FACES = 6
_FORM_BYTES = 2**16  # of a form around a file
_HEADERS = {
  # Gradio's page compiles templates, and refers to fonts and scripts of other hosts.
  "Content-Security-Policy": "default-src 'self' data: blob:; "
  "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
  "base-uri 'self'; form-action 'self'; frame-ancestors 'none'; object-src 'none'",
  "Referrer-Policy": "no-referrer",
  "X-Content-Type-Options": "nosniff",
}


@contextlib.contextmanager
def demo_app(
  predictor: ImagePredictor[Any], *, limits: DemoLimits | None = None, card: str = ""
) -> Iterator[FastAPI]:
  """The application, and the folder of its uploads, which is removed at the end of the context.

  Only one application can exist at a time in a process: Gradio takes the folder from the
  environment.

  Args:
    predictor: of `ferjax.load_predictor` or `ferjax.export.load_exported`; it is compiled here.
    limits: of the page; the defaults if None.
    card: Markdown about the weights, as of `ferjax.demo.card.model_card`.
  """
  limits = limits or DemoLimits()
  predictor.compile([1])
  with upload_folder() as uploads:
    answers = Answers(predictor, _explainer(predictor), limits)
    yield asyncio.run(_app(answers, uploads, limits, card))


async def _app(answers: Answers, uploads: Uploads, limits: DemoLimits, card: str) -> FastAPI:
  """The application. Outside of an event loop, Gradio would make some and leave them open."""
  import gradio
  from gradio.themes import Base

  app = FastAPI(
    title="ferjax", version=__version__, docs_url=None, redoc_url=None, openapi_url=None
  )
  gradio.mount_gradio_app(
    app,
    make_page(answers, uploads, limits, card),
    path="/",
    # The pages of the documentation would load scripts from another host.
    app_kwargs={"docs_url": None, "redoc_url": None, "openapi_url": None},
    footer_links=[],
    run_history=False,
    ssr_mode=False,
    mcp_server=False,
    enable_monitoring=False,
    pwa=False,
    show_error=False,
    max_file_size=limits.max_bytes,
    # Gradio's own theme loads its fonts from another host.
    theme=Base(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
    css=STYLE,
  )
  app.add_middleware(Guard, uploads=uploads, limits=limits)
  return app


def _explainer(predictor: ImagePredictor[Any]) -> Explainer | None:
  try:
    return explainer_of(predictor, max_faces=_EXPLAINED_FACES)
  except (TypeError, ValueError) as error:
    logging.warning("the page shows no maps of evidence: %s", error)
    return None


class Guard:
  """Refuses bodies that are too large and too many uploads, and forbids requests to other hosts."""

  def __init__(self, app: ASGIApp, *, uploads: Uploads, limits: DemoLimits):
    self._app, self._uploads = app, uploads
    self._max_bytes = limits.max_bytes + _FORM_BYTES
    self._max_files = limits.queue_size + 1  # one is being answered

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
      await self._app(scope, receive, send)
      return

    async def send_with_headers(message: Message) -> None:
      if message["type"] == "http.response.start":
        MutableHeaders(scope=message).update(_HEADERS)
      await send(message)

    refusal = self._refusal(scope)
    await (refusal or self._app)(scope, receive, send_with_headers)

  def _refusal(self, scope: Scope) -> PlainTextResponse | None:
    if scope["method"] in ("GET", "HEAD"):
      return None
    length = Headers(scope=scope).get("content-length", "")
    if not length.isdecimal():
      return PlainTextResponse("expected a body with Content-Length", 411, {"Connection": "close"})
    if int(length) > self._max_bytes:
      text = f"the body is {length} bytes; expected at most {self._max_bytes}"
      return PlainTextResponse(text, 413, {"Connection": "close"})
    if scope["path"].endswith("/upload") and self._uploads.count() >= self._max_files:
      text = "too many files are waiting for an answer; try again later"
      return PlainTextResponse(text, 503, {"Retry-After": "5", "Connection": "close"})
    return None
