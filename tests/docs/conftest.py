"""`doc_pages` reads the pages; the tests of this folder import it."""

import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).parent))
