"""Programs that answer photographs with faces, one for each package; `other_packages.py` asks them.

Each reads paths from its standard input, one a line, and prints one line of JSON for each:
`{"ms": ..., "faces": [{"box": [x1, y1, x2, y2], "scores": {...}}]}`, in pixels and 0..1. The time
is from the file to the faces. Lines of answers start with `@`: libraries print as well.
"""
