"""The split on which checkpoints are selected.

By default never the test split: the best score of many checkpoints is biased.
"""

SELECT_ON = ("val", "test")
_REASON_WORDS = 3  # minimum length of a reason


def check_selection(select_on: str, reason: str) -> str:
  """The note in every report about the split that checkpoints are selected on.

  Args:
    select_on: "val" or "test".
    reason: why the test split is used, in words.

  Returns:
    A sentence for the reports; empty for "val".

  Raises:
    ValueError: "test" without a reason in words, a reason for "val", or an unknown split.
  """
  if select_on not in SELECT_ON:
    raise ValueError(f"unknown train.select_on {select_on!r}; known: {', '.join(SELECT_ON)}")
  reason = " ".join(reason.split())
  if select_on == "val":
    if reason:
      raise ValueError(
        f"train.select_on_test_reason is set ({reason!r}), but train.select_on is 'val'; "
        "remove the reason"
      )
    return ""
  if len(reason.split()) < _REASON_WORDS:
    raise ValueError(
      f"train.select_on is 'test', with the reason {reason!r}: a checkpoint that was selected on "
      "the test split has no test score. Use train.select_on='val' (`ferjax data prepare` splits "
      "off a validation split if a set has none), or give a reason, such as "
      "--config.train.select_on_test_reason='the published protocol selects on it'"
    )
  return f"Selected on the test split, so its score on it is optimistic: {reason}"
