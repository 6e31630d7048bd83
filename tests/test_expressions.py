"""Common spellings of expression names."""

import pytest

from ferjax import expressions
from ferjax.expressions import EXPRESSIONS, index_of_spelling


@pytest.mark.parametrize(
  ("text", "name"),
  [
    ("neutral", "neutral"),
    ("Neutral", "neutral"),
    ("HAPPY", "happiness"),
    (" Sad ", "sadness"),
    ("Angry", "anger"),
    ("surprised", "surprise"),
    ("Disgust", "disgust"),
    ("Fearful", "fear"),
  ],
)
def test_spellings(text, name):
  assert EXPRESSIONS[index_of_spelling(text, EXPRESSIONS)] == name
  with pytest.raises(ValueError, match="unknown expression"):
    expressions.index_of(text + "!", EXPRESSIONS)


def test_every_synonym_means_an_expression():
  assert set(expressions.SPELLINGS.values()) <= set(EXPRESSIONS)
  assert not set(expressions.SPELLINGS) & set(EXPRESSIONS)
  assert all(word == word.casefold() for word in expressions.SPELLINGS)


def test_spellings_of_other_class_names():
  assert index_of_spelling("happiness", ("Sad", "Happy")) == 1
  assert index_of_spelling("smiling", ("not", "Smiling")) == 1
  # An exact name always matches; ambiguous names are refused.
  assert index_of_spelling("Happy", ("happiness", "Happy")) == 1
  with pytest.raises(ValueError, match="unknown class 'HAPPY'; known: happiness, Happy"):
    index_of_spelling("HAPPY", ("happiness", "Happy"))


@pytest.mark.parametrize("text", ["contempt", "happpy", "", "3"])
def test_unknown_names_list_the_known(text):
  with pytest.raises(ValueError, match=f"unknown class '{text}'; known: neutral, happiness"):
    index_of_spelling(text, EXPRESSIONS[:2])
