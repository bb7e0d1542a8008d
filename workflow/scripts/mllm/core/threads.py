"""The number of compute threads. The order of sums depends on it, and therefore the results' last digits."""

import contextlib
import os
import sys


def fix(number: int) -> None:
    """Set torch's number of threads, so that the order of sums is the same on every machine."""
    import torch

    torch.set_num_threads(number)
    with contextlib.suppress(RuntimeError):  # torch allows setting it once
        torch.set_num_interop_threads(1)


def fix_without_torch() -> None:
    """Set the number of threads of numpy's matrix products to one."""
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
    if "numpy" in sys.modules:  # a warm start imported it: it has read these variables already
        from threadpoolctl import threadpool_limits

        threadpool_limits(1)
