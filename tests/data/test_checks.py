"""Pairs of hashes against a loop; the other checks are in datasets/test_damage.py."""

import numpy as np
import pytest

from ferjax.data import checks
from ferjax.data.checks import near_pairs


def test_near_pairs_are_those_of_a_loop(monkeypatch):
  monkeypatch.setattr(checks, "_BLOCK", 7)
  rng = np.random.default_rng(0)
  hashes = rng.integers(0, 2**64, (40, 4), np.uint64, endpoint=False)
  for source, target, flips in ((3, 30, 5), (0, 39, 12), (6, 7, 13), (20, 21, 0)):
    bits = np.unpackbits(hashes[source].view(np.uint8))
    bits[rng.permutation(256)[:flips]] ^= 1
    hashes[target] = np.packbits(bits).view(np.uint64)
  expected = set()
  for i in range(40):
    for j in range(i + 1, 40):
      bits = sum(bin(int(a) ^ int(b)).count("1") for a, b in zip(hashes[i], hashes[j], strict=True))
      if bits <= 12:
        expected.add((i, j, bits))
  assert expected == {(3, 30, 5), (0, 39, 12), (20, 21, 0)}
  assert set(near_pairs(hashes, 12)) == expected


def test_blank_pictures_do_not_fill_the_memory(monkeypatch):
  monkeypatch.setattr(checks, "_MAX_PAIRS", 100)
  with pytest.raises(ValueError, match="more than 100 pairs of images look alike"):
    list(near_pairs(np.zeros((20, 4), np.uint64), 12))
