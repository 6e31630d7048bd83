"""The data sets: one file each, what they have in common in `base`, their list in `catalog`."""
