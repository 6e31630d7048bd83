"""FER-YOLO-Mamba-s in PyTorch without the recurrence of its scans.

Everything else remains, such as the paths and the projections to dt, B and C. A scan written in
PyTorch takes most of the time of the whole network; this tells what the rest takes.
"""

import functools

from peers import fer_yolo_mamba

DESCRIPTION = "FER-YOLO-Mamba-s, eager, its scans left out"
VARIANTS = fer_yolo_mamba.VARIANTS

forward = functools.partial(fer_yolo_mamba.forward, recurrent=False)
step = functools.partial(fer_yolo_mamba.step, recurrent=False)
