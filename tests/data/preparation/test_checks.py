"""The number of listed near duplicates; datasets/test_damaged_images.py tests the other checks."""

from ferjax.data.datasets.entries import Entry
from ferjax.data.preparation.checks import near_duplicates
from ferjax.data.preparation.duplicates import HashedEntry, Signature


def test_number_of_listed_pairs_is_limited():
  seen = []
  for i in range(20):  # 190 pairs
    entry = Entry(f"t.csv:{i}", f"{i}", "", "train", 0)
    seen.append(HashedEntry("train", entry, Signature(bytes([i]), bytes(32))))
  messages = [finding.message for finding in near_duplicates(seen, limit=100)]
  assert len(messages) == 101
  assert messages[0] == "train: t.csv:1 looks like train: t.csv:0 (0 of 256 bits differ)"
  assert messages[100].startswith("more than 100 pairs of images look alike: are they all blank")
  assert len(list(near_duplicates(seen, limit=190))) == 190
