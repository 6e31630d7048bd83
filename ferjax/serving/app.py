"""The web application of `ferjax serve`."""

import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

from ferjax._version import __version__
from ferjax.data.image import ImageError
from ferjax.inference.base import ImagePredictor
from ferjax.inference.files import image_fields
from ferjax.serving.limits import Limits
from ferjax.serving.metrics import Metrics
from ferjax.serving.service import BusyError, Service, running_service
from ferjax.serving.uploads import read_image

_RETRY_SECONDS = 1
_FILE = {"type": "string", "format": "binary"}
# For OpenAPI: the application reads the body itself, within its limits.
_REQUEST_BODY = {
  "required": True,
  "content": {
    "multipart/form-data": {
      "schema": {"type": "object", "properties": {"image": _FILE}, "required": ["image"]}
    },
    "application/octet-stream": {"schema": _FILE},
  },
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
  400: {"description": "The multipart form cannot be read."},
  408: {"description": "The body did not arrive in time."},
  413: {"description": "The body is too large."},
  422: {"description": "The image cannot be decoded, or has too many pixels."},
  503: {"description": "Too many requests are waiting; see Retry-After."},
}


def create_app(
  predictor: ImagePredictor[Any], *, limits: Limits | None = None, header: Mapping[str, Any] = {}
) -> FastAPI:
  """The application: `POST /predict`, `GET /model`, `/health` and `/metrics`.

  It starts to answer when the model is compiled.

  Args:
    predictor: of one process; its model runs in one thread.
    limits: of the service; the defaults if None.
    header: further fields of `/model`, such as the name of the checkpoint.
  """
  metrics = Metrics()
  description = {**header, "class_names": predictor.class_names}

  @contextlib.asynccontextmanager
  async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    async with running_service(predictor, limits or Limits(), metrics) as service:
      yield {"service": service}

  # The pages of the documentation would load scripts from another host.
  app = FastAPI(
    title="ferjax", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
  )

  @app.post(
    "/predict",
    summary="The faces of one image and their expressions",
    openapi_extra={"requestBody": _REQUEST_BODY},
    responses=_RESPONSES,
  )
  async def predict(request: Request) -> Response:
    with _observed(metrics):
      return JSONResponse(await _predict(request, request.state.service))

  @app.get("/model", summary="The weights, their settings and their classes")
  async def model() -> Response:
    return JSONResponse(description)

  @app.get("/health", summary="Whether images can be sent")
  async def health() -> Response:
    return JSONResponse({"status": "ready"})

  @app.get("/metrics", summary="Metrics for Prometheus")
  async def scrape() -> Response:
    return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

  return app


async def _predict(request: Request, service: Service) -> dict[str, Any]:
  """The fields of an image, as in `predictions.json`; an HTTPException for any error."""
  try:
    service.queue.check()  # before the upload, which would be for nothing
    with service.uploads.take():
      encoded, name = await read_image(request, service.limits)
    return image_fields(await service.predict(encoded, name))
  except BusyError as error:
    raise _retry("too many requests are waiting") from error
  except TimeoutError as error:
    raise _retry(f"no result within {service.limits.timeout:g} s") from error
  except ImageError as error:
    raise HTTPException(422, str(error)) from error


def _retry(reason: str) -> HTTPException:
  return HTTPException(
    503, f"{reason}; expected fewer requests: try again later", {"Retry-After": f"{_RETRY_SECONDS}"}
  )


@contextlib.contextmanager
def _observed(metrics: Metrics) -> Iterator[None]:
  """Records the status and the time of a request."""
  start, status = time.perf_counter(), 500
  try:
    yield
    status = 200
  except HTTPException as error:
    status = error.status_code
    raise
  finally:
    metrics.requests.labels(status).inc()
    metrics.request_seconds.observe(time.perf_counter() - start)
