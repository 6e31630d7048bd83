"""No selection on the test split without a reason."""

import pytest

from ferjax.training.selection import check_selection


def test_selection_on_test_needs_a_reason():
  assert check_selection("val", "") == ""
  note = check_selection("test", "the published  protocol selects on it")
  assert note.endswith("the published protocol selects on it")
  for reason in ("", "yes", "because"):
    with pytest.raises(ValueError, match=r"train.select_on is 'test', .*a checkpoint that was"):
      check_selection("test", reason)
  with pytest.raises(ValueError, match=r"unknown train.select_on 'tset'; known: val, test"):
    check_selection("tset", "")
  with pytest.raises(ValueError, match="remove the reason"):
    check_selection("val", "a reason in words")
