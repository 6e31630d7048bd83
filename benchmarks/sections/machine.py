"""The device and the versions, for the head of the tables."""

import datetime
import os
import platform

import flax
import jax
from report import Section


def run(section: Section) -> None:
  section.add(
    date=str(datetime.date.today()),
    device=jax.devices()[0].device_kind,
    cores=len(os.sched_getaffinity(0)),
    python=platform.python_version(),
    jax=jax.__version__,
    flax=flax.__version__,
  )
