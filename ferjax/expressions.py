"""Expression names in their canonical order, and every dataset's codes for them.

This is the only place that knows a dataset's label ids. Everything else speaks of an index into
`EXPRESSIONS`: 0-based, no background class.
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

# The codes of `list_patition_label.txt`, 1-based (spec/datasets, RAF-DB).
RAF_DB_CODES = {
  1: "surprise",
  2: "fear",
  3: "disgust",
  4: "happiness",
  5: "sadness",
  6: "anger",
  7: "neutral",
}


def index_of(name: str, class_names: tuple[str, ...] = EXPRESSIONS) -> int:
  """The class index of an expression's name; a ValueError lists the known names."""
  if name not in class_names:
    raise ValueError(f"unknown expression {name!r}; known: {', '.join(class_names)}")
  return class_names.index(name)
