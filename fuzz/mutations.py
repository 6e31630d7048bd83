"""Random changes of inputs, without a library."""

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

# Numbers at the limits of types, and what separates or opens something in text formats.
_PIECES = (
  *(b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\1"),
  *(b"\n", b"\r", b",", b" ", b"..", b"/", b'"', b"[", b"{", b"(", b"<", b"nan", b"inf", b"1e999"),
  *(b"-1", b"9" * 30, b"null", b"true", b"\xff\xfe", b"\xef\xbb\xbf", "²٣é".encode()),
)
_VALUES = (
  *(None, True, False, 0, -1, 1, 2**31, 2**70, 1e308, -0.5, "", "x" * 40, "a\nb", [], {}, [1]),
  *(["a", "a"], {"a": 1}, [[[]]], "fermam", "detection", [None], [1, 2, 3], ["x"]),
)


def mutate(data: bytes, rng: random.Random) -> bytes:
  """Data with one to eight changes."""
  changed = bytearray(data)
  for _ in range(rng.choice((1, 1, 2, 4, 8))):
    place = rng.randrange(len(changed) + 1)
    piece = rng.choice((rng.choice(_PIECES), rng.randbytes(rng.choice((1, 4, 20)))))
    kind = rng.randrange(5)
    if kind == 0:
      changed[place : place + len(piece)] = piece
    elif kind == 1:
      changed[place:place] = piece
    elif kind == 2:
      del changed[place : place + rng.choice((1, 4, 50))]
    elif kind == 3 and place < len(changed):
      changed[place] ^= 1 << rng.randrange(8)
    else:
      start = rng.randrange(len(changed) + 1)
      changed[place:place] = changed[start : start + 20]
  return bytes(changed)


def mutate_json(data: bytes, rng: random.Random) -> bytes:
  """JSON text with one to three other values; a change of the bytes if it is no JSON text."""
  try:
    value = json.loads(data)
  except (ValueError, RecursionError):
    return mutate(data, rng)
  for _ in range(rng.choice((1, 1, 2, 3))):
    places = list(_places(value))
    if not places:
      break
    parent, key = rng.choice(places)
    if isinstance(parent, dict) and rng.random() < 0.2:
      del parent[key]
    else:
      parent[key] = copy.deepcopy(rng.choice(_VALUES))
  return json.dumps(value).encode()


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
  """Each container inside the value with each of its keys or indices."""
  keys = (
    list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
  )
  for key in keys:
    yield value, key
    yield from _places(value[key])
