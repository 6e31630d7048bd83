"""Pairs of hashes against a loop; the other checks are in datasets/test_damage.py."""

import numpy as np

from ferjax.data.datasets.entries import Entry
from ferjax.data.preparation import checks
from ferjax.data.preparation.checks import near_pairs


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


def test_pictures_that_are_all_alike_do_not_fill_the_list(monkeypatch):
  monkeypatch.setattr(checks, "_MAX_PAIRS", 100)
  seen = []
  for i in range(20):  # 190 pairs
    entry = Entry(f"t.csv:{i}", f"{i}", "", "train", 0)
    seen.append(("train", entry, checks._Seen(bytes([i]), np.zeros(4, np.uint64), (9, 9), [])))
  messages = [finding.message for finding in checks._near_duplicates(seen)]
  assert len(messages) == 101
  assert messages[0] == "train: t.csv:1 looks like train: t.csv:0 (0 of 256 bits differ)"
  assert messages[100].startswith("more than 100 pairs of images look alike: are they all blank")
