import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from ferjax.demo import markup


def test_scores_are_bars_in_the_order_of_the_classes():
  text = markup.scores("a & b", {"one": 0.25, '"two"': 0.5, "three": 1.0})
  assert "<h3>a &amp; b</h3>" in text
  bars = re.findall(r'aria-label="(.*?)" .*?aria-valuenow="(.*?)"><div style="width: (.*?)%', text)
  assert bars == [
    ("one", "0.250", "25.0"),
    ("&quot;two&quot;", "0.500", "50.0"),
    ("three", "1.000", "100.0"),
  ]
  assert re.findall(r'class="number">(.*?)<', text) == ["0.25", "0.50", "1.00"]


def test_messages_are_text():
  text = markup.problem("<img src=x onerror=alert(1)>")
  assert "<img" not in text
  assert "&lt;img src=x onerror=alert(1)&gt;" in text


@pytest.mark.parametrize(
  ("size", "shown"), [((40, 30), (40, 30)), ((3000, 1500), (1024, 512)), ((5, 20000), (1, 1024))]
)
def test_pictures_are_inside_the_page_and_reduced(size, shown):
  image = np.full((size[1], size[0], 3), (200, 50, 100), np.uint8)
  text = markup.picture(image, 'a "picture"')
  assert 'alt="a &quot;picture&quot;"' in text
  (content,) = re.findall(r'src="data:image/jpeg;base64,(.*?)"', text)
  with Image.open(io.BytesIO(base64.b64decode(content))) as decoded:
    assert decoded.size == shown
    assert np.abs(np.asarray(decoded).astype(int) - (200, 50, 100)).max() <= 3


def test_films_are_inside_the_page():
  text = markup.film(b"content", "a film")
  assert f'src="data:video/mp4;base64,{base64.b64encode(b"content").decode()}"' in text
