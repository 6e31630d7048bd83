"""The selective scan's methods: time and memory, beside the least time of an H100."""

import scan_accelerator
from report import Section


def run(section: Section) -> None:
  # Processors cannot run the kernels of "pallas".
  tiny = {"lengths": [100], "batches": [1], "methods": ["associative"]} if section.tiny else {}
  for row in scan_accelerator.rows(**tiny, seconds=section.seconds_left()):
    result = {"batch": row.batch, "length": row.length, "program": row.what, "method": row.method}
    result["limit, ms"] = row.limit
    if row.time is None:
      section.add(**result, error=row.problem)
    else:
      times = {"ms": row.time, "times the limit": row.time / row.limit}
      section.add(**result, **times, **{"temporary memory, MB": row.memory})
