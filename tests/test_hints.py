from typing import Any

import pytest

from ferjax.hints import describe, fits


@pytest.mark.parametrize(
  ("hint", "fitting", "others"),
  [
    (str, ("", "a"), (None, 1, b"a")),
    (int, (0, -(2**62), 2**63 - 1), (2**63, 1.0, True, "1")),
    (float, (0.5, 1, float("nan"), 10**300), (10**400, False, "0.5", None, 1j)),
    (bool, (True, False), (0, 1, None)),
    (int | None, (3, None), ("3", 3.0, False)),
    (tuple[str, ...], ((), ("a",), ("a", "b")), ("a", ["a"], (1,), ("a", None), (["a"],))),
    (tuple[float, float], ((0.5, 1), (1, 2)), ((), (0.5,), (1, 2, 3), (0.5, "a"), 0.5)),
    (tuple[tuple[int, int], ...], ((), ((1, 2), (3, 4))), ((1, 2), ((1, 2), 3), ((1,),))),
    (dict[str, Any], ({}, {"a": [1]}), ([], None)),
    (Any, (None, [1], "a"), ()),
  ],
)
def test_values_and_types(hint, fitting, others):
  for value in fitting:
    assert fits(value, hint), value
  for value in others:
    assert not fits(value, hint), value


@pytest.mark.parametrize(
  ("hint", "words"),
  [
    (str, "a string"),
    (bool, "True or False"),
    (tuple[str, ...], "a tuple of strings, such as ('a', 'b')"),
    (tuple[int, int, int], "a tuple of 3 whole numbers, such as (1, 2, 3)"),
    (float | None, "a number or None"),
    (dict[str, Any], "dict[str, typing.Any]"),
    (tuple[tuple[int, int], ...], "tuple[tuple[int, int], ...]"),
  ],
)
def test_descriptions(hint, words):
  assert describe(hint) == words
