"""Pairs of hashes against a loop; dropped records against hand-made cases and the definition."""

import itertools

import numpy as np
import pytest

from ferjax.data.datasets.entries import Entry
from ferjax.data.preparation.duplicates import (
  NEAR_BITS,
  HashedEntry,
  Signature,
  find_dropped,
  neighbours,
  signature,
)


def test_neighbours_equal_those_of_a_loop():
  rng = np.random.default_rng(0)
  hashes = rng.integers(0, 2**64, (40, 4), np.uint64, endpoint=False)
  for source, target, flips in ((3, 30, 5), (0, 39, 12), (6, 7, 13), (20, 21, 0)):
    bits = np.unpackbits(hashes[source].view(np.uint8))
    bits[rng.permutation(256)[:flips]] ^= 1
    hashes[target] = np.packbits(bits).view(np.uint64)
  hashes[35] = ~hashes[34]  # all 256 bits differ
  expected = set()
  for i, j in itertools.combinations(range(40), 2):
    bits = sum(bin(int(a) ^ int(b)).count("1") for a, b in zip(hashes[i], hashes[j], strict=True))
    if bits <= 12:
      expected.add((i, j, bits))
  assert expected == {(3, 30, 5), (0, 39, 12), (20, 21, 0)}
  found = {
    (i, j, number)
    for i, others, bits in neighbours(hashes, 12, block=7)
    for j, number in zip(others.tolist(), bits.tolist(), strict=True)
  }
  assert found == expected


def test_signature_of_equal_and_similar_images():
  coarse = np.random.default_rng(0).integers(0, 200, (8, 8), np.uint8)
  image = np.repeat(np.kron(coarse, np.ones((8, 8), np.uint8))[..., None], 3, axis=2)
  one, other = signature(image), signature(image + np.uint8(1))
  assert one.digest != other.digest
  assert one.hash == other.hash
  assert len(one.hash) == 32
  assert signature(image.reshape(32, 128, 3)).digest != one.digest  # the same bytes


def see(text):
  """Images from words as "train:a1:x": split, a letter and variant of the image, and label.

  Images of a letter look alike, those of a variant are the same.
  """
  seen = []
  for number, word in enumerate(text.split()):
    split, image, label = word.split(":")
    hash = bytearray(np.random.default_rng(ord(image[0])).bytes(32))
    hash[int(image[1]) % 32] ^= 0b11  # variants differ in four bits
    entry = Entry(f"t.csv:{number}", f"{number}", "", split, ord(label))
    seen.append(HashedEntry(split, entry, Signature(image.encode(), bytes(hash))))
  return seen


@pytest.mark.parametrize(
  ("images", "mode", "dropped"),
  [
    # Test has priority over val, and val over train, in any order.
    ("train:a0:x val:a0:x test:a0:x train:b0:x val:b0:x", "across-splits", [0, 1, 3]),
    # Near duplicates count as well; within a split nothing is dropped.
    ("train:a0:x train:a1:x val:a2:x val:a2:y test:b0:x test:b0:x", "across-splits", [0, 1]),
    ("train:a0:x train:a0:y val:b0:x test:c0:x", "across-splits", []),
    # Different labels: the records of later splits are dropped.
    ("train:a0:x test:a0:y train:b0:x val:b0:y train:c0:x test:c0:x", "conflicting", [0, 2]),
    # Even those with the label that is kept: the image has different labels.
    ("test:a0:x train:a0:x train:a0:y", "conflicting", [1, 2]),
    # If labels differ within train or val, none is kept there; test keeps its own.
    ("train:a0:x train:a0:x train:a0:y train:b0:x", "conflicting", [0, 1, 2]),
    ("val:a0:x val:a0:y train:a0:x test:b0:x test:b0:y", "conflicting", [0, 1, 2]),
    ("test:b0:x test:b0:y train:b0:x", "conflicting", [2]),
    # Near duplicates may have other labels: they may show another moment.
    ("train:a0:x train:a1:y test:a2:z", "conflicting", []),
    # All: only the first within each split is kept.
    ("train:a0:x train:a1:x train:a0:x train:b0:x", "all", [1, 2]),
    ("train:a0:x val:a1:x test:a2:x test:a3:x test:a2:y", "all", [0, 1, 3, 4]),
    ("train:a0:x train:a0:y train:a1:x train:b0:x", "all", [0, 1]),
    ("train:a0:x test:a0:y", "none", []),
    # Leak-free: train keeps everything, val and test what is not in train.
    ("val:a0:x train:a0:y test:a1:x train:a1:x val:b0:x test:b0:x", "leak-free", [0, 2]),
    ("val:a0:x val:a0:x val:a1:x test:a0:x train:b0:x train:b0:y", "leak-free", []),
  ],
)
def test_what_is_dropped(images, mode, dropped):
  found = find_dropped(see(images), mode)
  assert sorted(int(one.entry.key) for one, _ in found) == dropped


def test_why_it_is_dropped():
  seen = see("train:a0:x val:a0:x train:b0:x test:b1:x train:c0:x train:c0:y train:d0:x val:d0:y")
  reasons = [reason for mode in ("across-splits", "conflicting") for _, reason in _drop(seen, mode)]
  assert reasons == [
    "train: t.csv:0 is the same image as val: t.csv:1: across splits",
    "train: t.csv:2 looks like test: t.csv:3 (4 of 256 bits differ): across splits",
    "train: t.csv:6 is the same image as val: t.csv:7: across splits",
    "train: t.csv:4 is the same image as train: t.csv:5, with another label: none is kept",
    "train: t.csv:5 is the same image as train: t.csv:4, with another label: none is kept",
    "train: t.csv:6 is the same image as val: t.csv:7: across splits; labels of this image differ",
  ]


def _drop(seen, mode):
  return sorted(find_dropped(seen, mode), key=lambda pair: int(pair[0].entry.key))


def test_a_leaked_record_is_dropped_once_with_its_first_twin():
  seen = see("test:a1:x train:a0:x train:a1:y")
  ((one, reason),) = find_dropped(seen, "leak-free")
  assert one is seen[0]
  assert reason == ("test: t.csv:0 looks like train: t.csv:1 (4 of 256 bits differ): across splits")


@pytest.mark.parametrize("mode", ["across-splits", "all"])
def test_no_pair_remains_and_every_dropped_record_has_one(mode):
  """Includes chains, in which the first and the third are not near duplicates."""
  rng = np.random.default_rng(1)
  seen = []
  for number in range(120):
    if number % 3 == 0:
      bits = rng.integers(0, 2, 256)
    bits[rng.permutation(256)[:20]] ^= 1
    split = str(rng.choice(["train", "val", "test"]))
    entry = Entry(f"t.csv:{number}", f"{number}", "", split, 0)
    seen.append(HashedEntry(split, entry, Signature(bytes([number]), np.packbits(bits).tobytes())))

  def is_pair(one, other):
    a, b = (np.unpackbits(np.frombuffer(x.signature.hash, np.uint8)) for x in (one, other))
    is_near = np.sum(a != b) <= NEAR_BITS
    return is_near and (mode == "all" or one.split != other.split)

  dropped = [one for one, _ in find_dropped(seen, mode)]
  kept = [one for one in seen if one not in dropped]
  assert dropped
  assert not any(is_pair(a, b) for a, b in itertools.combinations(kept, 2))
  splits = ["test", "val", "train"]
  for one in dropped:
    partners = [other for other in kept if is_pair(one, other)]
    ranks = [(splits.index(x.split), int(x.entry.key)) for x in (one, *partners)]
    assert min(ranks) != ranks[0]


def test_an_unknown_mode():
  with pytest.raises(ValueError, match=r"unknown mode 'some' to drop duplicates; known: none, acr"):
    find_dropped([], "some")
  assert find_dropped([], "all") == []
