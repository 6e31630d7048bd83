"""The sections of `benchmarks/accelerator.py`: modules with a function `run(section)`."""
