"""The data sets: one file each, with shared definitions in `base` and the list in `catalog`."""
