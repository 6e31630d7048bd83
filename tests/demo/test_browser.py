"""`ferjax demo` with the default weights, in headless Chromium: what a visitor does and sees."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile

import av
import numpy as np
import pytest
from PIL import Image

playwright = pytest.importorskip("playwright.sync_api", reason="needs: pip install playwright")

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or ""
pytestmark = [
  pytest.mark.slow,  # a minute: the networks are compiled, and a browser is started
  pytest.mark.skipif(not os.path.exists(CHROMIUM), reason="needs Chromium; CHROMIUM is its path"),
]
PORTRAITS = pathlib.Path(__file__).parents[1] / "photographs" / "portraits.jpg"
FLAGS = (
  "--no-sandbox",  # for root in containers; the page is our own
  "--disable-gpu",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--no-first-run",
  "--use-fake-device-for-media-stream",
  "--use-fake-ui-for-media-stream",
)
WAIT = 300_000  # milliseconds: much more than any step takes


@pytest.fixture(scope="module")
def portrait():
  """The first face, u8[256 256 3]."""
  with Image.open(PORTRAITS) as image:
    side = image.height
    return np.array(image.crop((0, 0, side, side)).resize((256, 256)))


def write_film(path, image, frames, codec, pixels, **options):
  with av.open(str(path), "w", **options) as container:
    stream = container.add_stream(codec, rate=8)
    stream.width = stream.height = len(image)
    stream.pix_fmt = pixels
    for _ in range(frames):
      container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
    container.mux(stream.encode(None))
  return path


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
  """The address of the page, and the folder of temporary files of its program."""
  folder = tmp_path_factory.mktemp("temporary")
  command = [sys.executable, "-m", "ferjax.commands.main", "demo", "--port", "0"]
  environment = {**os.environ, "TMPDIR": str(folder), "JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}
  with (
    tempfile.TemporaryFile("w+") as errors,
    subprocess.Popen(
      [*command, "--camera-seconds", "3"],
      stdout=subprocess.PIPE,
      stderr=errors,
      env=environment,
      text=True,
    ) as process,
  ):
    try:
      line = process.stdout.readline()
      assert line.startswith("Ready: http://127.0.0.1:"), line
      yield line.removeprefix("Ready: ").strip(), folder
      process.send_signal(signal.SIGTERM)
      assert process.wait(WAIT / 1000) == 0
      errors.seek(0)
      assert "Traceback" not in errors.read()
      assert list(folder.glob("ferjax-*")) == []
    finally:
      process.kill()


@pytest.fixture(scope="module")
def browser(tmp_path_factory, portrait):
  film = tmp_path_factory.mktemp("camera") / "camera.mjpeg"
  write_film(film, portrait, 16, "mjpeg", "yuvj420p", format="mjpeg")
  arguments = [*FLAGS, f"--use-file-for-fake-video-capture={film}"]
  with playwright.sync_playwright() as started:
    browser = started.chromium.launch(executable_path=CHROMIUM, args=arguments)
    yield browser
    browser.close()


@pytest.fixture
def page(browser, demo):
  """The open page; at the end, all requests were to the program, and it has no file any more."""
  address, folder = demo
  with browser.new_context(viewport={"width": 1100, "height": 900}) as context:
    requests, errors = [], []
    context.on("request", lambda request: requests.append(request.url))
    page = context.new_page()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    page.get_by_role("tab", name="Image").wait_for(timeout=WAIT)
    yield page
  assert [x for x in requests if not x.startswith((address, "data:", "blob:"))] == []
  assert errors == []
  assert [x for x in folder.glob("ferjax-*/**/*") if x.is_file()] == []


def choose(page, path):
  page.locator(
    "input[type=file]:visible, [role=tabpanel]:visible input[type=file]"
  ).first.set_input_files(path)


def test_an_image_and_broken_files(page, tmp_path):
  choose(page, PORTRAITS)
  page.get_by_role("status").filter(has_text="3 faces found").wait_for(timeout=WAIT)
  assert page.get_by_role("meter").count() == 3 * 8
  smile = page.get_by_role("meter", name="happiness").first
  assert float(smile.get_attribute("aria-valuenow")) > 0.5
  for description in ("3 faces found: 2 happiness, 1 neutral", "Maps of the evidence"):
    picture = page.get_by_role("img", name=re.compile(description))
    assert picture.evaluate("image => image.naturalWidth") > 500
  for name, content in (("text.jpg", b"no picture"), ("short.jpg", PORTRAITS.read_bytes()[:300])):
    (tmp_path / name).write_bytes(content)
    choose(page, tmp_path / name)
    alert = page.get_by_role("alert").filter(has_text=f"{name}: ")
    alert.wait_for(timeout=WAIT)
    assert "Choose a JPEG" in alert.text_content()
    assert page.get_by_role("meter").count() == 0
  Image.new("RGB", (300, 200), (90, 120, 90)).save(tmp_path / "empty.png")
  choose(page, tmp_path / "empty.png")
  page.get_by_role("status").filter(has_text="no face was found").wait_for(timeout=WAIT)


def test_a_film(page, tmp_path, portrait):
  page.get_by_role("tab", name="Video").click()
  film = write_film(tmp_path / "a.mp4", portrait, 12, "libx264", "yuv420p")
  choose(page, film)
  page.get_by_role("status").filter(has_text="1 person found").wait_for(timeout=WAIT)
  page.wait_for_function("document.querySelector('.ferjax video').duration > 1", timeout=WAIT)
  assert page.get_by_role("heading", name=re.compile("Person 1: happiness in")).count() == 1
  (tmp_path / "b.mp4").write_bytes(b"no film")
  choose(page, tmp_path / "b.mp4")
  page.get_by_role("alert").filter(has_text="b.mp4: not a video").wait_for(timeout=WAIT)


def test_a_webcam(page):
  page.get_by_role("tab", name="Webcam").click()
  page.get_by_role("button", name="Click to Access Webcam").click()
  page.get_by_label("capture photo").click()
  page.get_by_text("Record", exact=True).wait_for(state="hidden", timeout=WAIT)
  page.get_by_text("1 face found: 1 happiness").wait_for(timeout=WAIT)
  assert page.get_by_role("meter").count() == 8
  page.get_by_text("Record", exact=True).wait_for(timeout=WAIT)  # after its 3 seconds


def test_the_model_card(page):
  page.get_by_role("tab", name="Model card").click()
  page.get_by_role("heading", name=re.compile("^Expressions: ")).wait_for(timeout=WAIT)
  assert page.get_by_text("training data").count() == 2
  assert page.get_by_text("What they are not for").count() == 1


def test_requests_to_elsewhere_are_forbidden(page):
  ask = "fetch('https://example.com/').then(() => 'sent', () => 'refused')"
  assert page.evaluate(ask) == "refused"
