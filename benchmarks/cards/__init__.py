"""Measures named weights and writes their model cards: `model_card.py`, `real_photographs.py`."""
