"""Reads the image of a request into memory; nothing is written to disk."""

import asyncio
from collections.abc import AsyncGenerator

from fastapi import HTTPException, Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from ferjax.serving.limits import Limits

_MULTIPART = "multipart/form-data"


class _MemoryParser(MultiPartParser):
  """Keeps files in memory; the limit of the body bounds them."""

  spool_max_size = 0  # of a SpooledTemporaryFile: 0 never writes to disk


async def read_image(request: Request, limits: Limits) -> tuple[bytes, str | None]:
  """The encoded image, and its file name if the request has one.

  The body is the image itself, or a multipart form with one file.

  Raises:
    HTTPException: 400 for a form that cannot be read, or a connection that is closed early; 408 for
      a body that takes longer than `limits.upload_timeout`; 413 for one above `limits.max_bytes`.
  """
  try:
    async with asyncio.timeout(limits.upload_timeout):
      body = _limited(request, limits.max_bytes)
      if request.headers.get("content-type", "").lower().startswith(_MULTIPART):
        return await _file_of_form(request, body)
      return b"".join([chunk async for chunk in body]), None
  except TimeoutError as error:
    raise HTTPException(
      408,
      f"the body did not arrive within {limits.upload_timeout:g} s; expected a faster upload, or "
      "a smaller image",
      {"Connection": "close"},
    ) from error
  except ClientDisconnect as error:
    raise HTTPException(400, "the connection was closed before the body had arrived") from error


async def _limited(request: Request, max_bytes: int) -> AsyncGenerator[bytes, None]:
  """The chunks of the body, unless they are too many bytes."""
  length = request.headers.get("content-length", "")
  received = int(length) if length.isdecimal() else 0
  _check_size(received, max_bytes)
  received = 0
  async for chunk in request.stream():
    received += len(chunk)
    _check_size(received, max_bytes)
    yield chunk


def _check_size(size: int, max_bytes: int) -> None:
  if size > max_bytes:
    raise HTTPException(
      413, f"the body is {size} bytes or more; expected at most {max_bytes}; scale the image down"
    )


async def _file_of_form(
  request: Request, body: AsyncGenerator[bytes, None]
) -> tuple[bytes, str | None]:
  try:
    form = await _MemoryParser(request.headers, body, max_files=1, max_fields=0).parse()
  except MultiPartException as error:
    raise _not_one_file(error.message) from error
  files = [value for value in form.values() if isinstance(value, UploadFile)]
  if not files:
    raise _not_one_file("no file in it")
  with files[0].file as file:
    return file.read(), files[0].filename


def _not_one_file(reason: str) -> HTTPException:
  return HTTPException(
    400,
    f"the multipart form cannot be read: {reason} Expected one file, as from "
    "`curl -F image=@photo.jpg`",
  )
