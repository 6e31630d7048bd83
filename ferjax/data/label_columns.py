"""Columns of the tables in which a classifier's answers wait for a person's corrections."""

CONFIDENCE = "confidence"  # the highest probability
WEIGHTS = "weights"  # which gave the probabilities; empty where a person gave the label
PROBABILITY = "p_"  # and the class: its probability
# Of corrections: the record, its label in the set, and its new label.
RECORD, GIVEN, LABEL = "record", "given", "label"
