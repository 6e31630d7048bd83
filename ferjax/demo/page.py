"""The page: tabs for an image, a webcam, a film, and the model card."""

import base64
import binascii
import pathlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ferjax.demo import markup
from ferjax.demo.answers import FILMS, Answers
from ferjax.demo.limits import DemoLimits
from ferjax.demo.uploads import UploadError, Uploads

if TYPE_CHECKING:
  from gradio import Blocks

_ABOUT = """# ferjax

Finds faces and says how they look: the scores are of perceived expressions, not of what a person
feels. Show only people who agree to it. The machine that serves this page computes the answers, and
removes files after them."""
_FRAME_SECONDS = 0.5  # between two frames of a camera
# Uploads without a question are removed after so many seconds, looked for as often.
_FORGOTTEN = 300


def make_page(answers: Answers, uploads: Uploads, limits: DemoLimits, card: str) -> "Blocks":
  """The page, to be mounted in an application.

  Args:
    answers: of the predictor.
    uploads: the folder of the uploaded files.
    limits: of the page.
    card: Markdown about the weights.
  """
  import gradio

  megabytes = f"{limits.max_bytes / 2**20:g} MB"
  with gradio.Blocks(
    title="ferjax",
    analytics_enabled=False,
    fill_width=True,
    delete_cache=(_FORGOTTEN, _FORGOTTEN),
  ) as page:
    gradio.Markdown(_ABOUT)
    with gradio.Tab("Image"):
      label = f"A picture of up to {megabytes} and {limits.max_pixels / 1e6:.0f} million pixels"
      image = gradio.File(label=label, file_types=["image"])
      found = gradio.HTML()
    with gradio.Tab("Webcam"):
      gradio.Markdown(f"The camera stops after {limits.camera_seconds:g} seconds.")
      camera = gradio.Image(label="Camera", sources=["webcam"], streaming=True)
      seen = gradio.HTML()
    with gradio.Tab("Video"):
      label = f"A film of up to {megabytes}, of which {limits.film_seconds:g} s are analysed"
      film = gradio.File(label=label, file_types=list(FILMS))
      persons = gradio.HTML()
    with gradio.Tab("Model card"):
      gradio.Markdown(card)
    # Gradio would copy, convert and name the files; `preprocess=False` leaves them alone.
    one_at_a_time = {"preprocess": False, "concurrency_limit": 1, "concurrency_id": "model"}
    for name, upload, shown, answer in (
      ("image", image, found, lambda path, name: answers.image(path.read_bytes(), name)),
      ("film", film, persons, answers.film),
    ):
      answer_upload = _answer_upload(uploads, answer)
      upload.upload(answer_upload, upload, [upload, shown], api_name=name, **one_at_a_time)
    camera.stream(
      _answer_frame(answers),
      camera,
      seen,
      preprocess=False,
      stream_every=_FRAME_SECONDS,
      time_limit=max(1, round(limits.camera_seconds)),
      concurrency_limit=limits.cameras,
      concurrency_id="camera",
      show_progress="hidden",
      api_visibility="private",
    )
    for field in (image, camera, film):
      field.async_move_resource_to_block_cache = _unchanged
  # Each session keeps its last answers in memory.
  page.state_session_capacity = limits.queue_size
  page.queue(max_size=limits.queue_size, api_open=False)
  return page


async def _unchanged(url_or_file_path: str | pathlib.Path | None) -> str | None:
  """Instead of Gradio's method, which would fetch a file from an address that a visitor sends."""
  return None if url_or_file_path is None else str(url_or_file_path)


def _answer_upload(
  uploads: Uploads, answer: Callable[[pathlib.Path, str], str]
) -> Callable[[Mapping[str, Any] | None], tuple[None, str]]:
  """Answers an upload, and empties its field: the file is removed."""

  def run(upload: Mapping[str, Any] | None) -> tuple[None, str]:
    try:
      with uploads.taken(upload) as (path, name):
        return None, answer(path, name)
    except UploadError as error:
      return None, markup.problem(str(error))

  return run


def _answer_frame(answers: Answers) -> Callable[[Mapping[str, Any] | None], str]:
  """Answers a frame, which the browser sends as a data URL."""

  def run(frame: Mapping[str, Any] | None) -> str:
    if frame is None:
      return ""
    try:
      encoded = base64.b64decode(str(frame.get("url")).partition("base64,")[2], validate=True)
    except binascii.Error:
      encoded = b""
    return answers.frame(encoded)

  return run
