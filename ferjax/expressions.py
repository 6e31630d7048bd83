"""Expression names in canonical order, and every data set's codes for them.

Only this module knows the label ids of data sets. All other code uses 0-based indices into
`EXPRESSIONS`, without a background class, and `UNLABELLED` for a box of unknown class.
"""

EXPRESSIONS = (
  "neutral",
  "happiness",
  "sadness",
  "surprise",
  "fear",
  "disgust",
  "anger",
  "contempt",
)
SEVEN_EXPRESSIONS = EXPRESSIONS[:7]

UNLABELLED = -1  # class of a box whose expression nobody labelled
UNKNOWN = "unknown"  # its name in annotation files

# The codes in `list_patition_label.txt`, 1-based (spec: datasets, RAF-DB).
RAF_DB_CODES = {
  1: "surprise",
  2: "fear",
  3: "disgust",
  4: "happiness",
  5: "sadness",
  6: "anger",
  7: "neutral",
}

# The column `expression` of AffectNet's csv release, and the numbers of its npy release.
AFFECTNET_CODES = {
  0: "neutral",
  1: "happiness",
  2: "sadness",
  3: "surprise",
  4: "fear",
  5: "disgust",
  6: "anger",
  7: "contempt",
}
AFFECTNET_WITHOUT_EXPRESSION = {8: "none", 9: "uncertain", 10: "no face"}

# The column `emotion` of fer2013.csv.
FER2013_CODES = {
  0: "anger",
  1: "disgust",
  2: "fear",
  3: "happiness",
  4: "sadness",
  5: "surprise",
  6: "neutral",
}

# The vote columns of fer2013new.csv, in order; the last two are not expressions.
FERPLUS_COLUMNS = (
  "neutral",
  "happiness",
  "surprise",
  "sadness",
  "anger",
  "disgust",
  "fear",
  "contempt",
  "unknown",
  "NF",
)
FERPLUS_NO_EXPRESSION = ("unknown", "NF")

# The last column of ExpW's label.lst.
EXPW_CODES = {
  0: "anger",
  1: "disgust",
  2: "fear",
  3: "happiness",
  4: "sadness",
  5: "surprise",
  6: "neutral",
}

# Synonyms in folder names and tables, in lower case.
SPELLINGS = {
  "happy": "happiness",
  "joy": "happiness",
  "sad": "sadness",
  "surprised": "surprise",
  "afraid": "fear",
  "fearful": "fear",
  "disgusted": "disgust",
  "angry": "anger",
  "contemptuous": "contempt",
}


def index_of(name: str, class_names: tuple[str, ...] = EXPRESSIONS) -> int:
  """The class index of an expression's name; a ValueError lists the known names."""
  if name not in class_names:
    raise ValueError(f"unknown expression {name!r}; known: {', '.join(class_names)}")
  return class_names.index(name)


def index_of_spelling(text: str, class_names: tuple[str, ...]) -> int:
  """The class index of a name in any case, or of its synonym in `SPELLINGS`.

  Raises:
    ValueError: the name matches no class, or several; the message lists the known names.
  """
  if text in class_names:
    return class_names.index(text)
  matches = [i for i, name in enumerate(class_names) if _canonical(name) == _canonical(text)]
  if len(matches) != 1:
    raise ValueError(f"unknown class {text!r}; known: {', '.join(class_names)}")
  return matches[0]


def _canonical(text: str) -> str:
  text = text.strip().casefold()
  return SPELLINGS.get(text, text)
