"""Lines, tables, numbers and names in common spellings."""

import pytest

from ferjax.data.datasets import parsing
from ferjax.data.datasets.entries import RecordError


def test_common_spellings_of_class_names():
  names = ("neutral", "happiness", "anger")
  assert parsing.parse_class("Angry", names, "t.csv:3") == 2
  with pytest.raises(
    RecordError, match=r"t.csv:3: class 'fear' is not one of neutral, happiness, anger \("
  ):
    parsing.parse_class("fear", names, "t.csv:3")


def test_lines_keep_their_numbers(tmp_path):
  path = tmp_path / "list.txt"
  path.write_bytes("\ufeffa.jpg\r\n\n  b.jpg 5 \n".encode())
  assert parsing.read_lines(path) == [(1, "a.jpg"), (3, "b.jpg 5")]
  path.write_bytes(b"a.jpg\n\nb\xe9.jpg\n")
  with pytest.raises(RecordError, match=r"list.txt:3: not UTF-8 text; save the file as"):
    parsing.read_lines(path)


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
def test_the_byte_order_mark_determines_the_encoding(tmp_path, codec):
  path = tmp_path / "t.csv"
  mark = "\ufeff" if codec == "utf-16-be" else ""
  path.write_bytes(f"{mark}a,b\r\n\u00e4, 2\n3\n".encode(codec))
  assert [line for _, line in parsing.read_lines(path)] == ["a,b", "\u00e4, 2", "3"]
  rows = list(parsing.read_rows(path, ("b", "a"), optional=("c",)))
  assert rows == [(2, {"a": "\u00e4", "b": "2"}), (3, {"a": "3", "b": ""})]


@pytest.mark.parametrize(
  ("text", "number"),
  [
    ("7", 7),
    (" 07 ", 7),
    ("-1", None),
    ("1.0", None),
    ("", None),
    ("\u00b2", None),
    ("9" * 99, None),
  ],
)
def test_whole_numbers(text, number):
  assert parsing.whole_number(text) == number


def test_the_first_existing_image_is_found(tmp_path):
  (tmp_path / "b.jpg").touch()
  candidates = [tmp_path / name for name in ("a.jpg", "b.jpg", "c.jpg")]
  assert parsing.find_image(candidates, "x") == str(tmp_path / "b.jpg")
  with pytest.raises(RecordError, match=r"^x: image file not found: .*/a.jpg$"):
    parsing.find_image(candidates[:1], "x")
  with pytest.raises(RecordError, match=r"^x: image file not found: .*/c.jpg$"):
    parsing.find_image(candidates[:1], "x", expected=candidates[2])


def test_a_folder_in_place_of_a_file_is_a_bad_record(tmp_path):
  with pytest.raises(RecordError, match=r"^x: cannot be read: "):
    parsing.read_file(tmp_path, "x")
  with pytest.raises(RecordError, match=r"^x: file not found: .*gone; look again$"):
    parsing.read_file(tmp_path / "gone", "x", hint="; look again")
