"""The number of compute threads: sums are made in an order that depends on it, so that results do too."""

import contextlib
import os
import sys


def fix(number: int) -> None:
    """Give torch so many threads: sums are then made in the same order on every machine."""
    import torch

    torch.set_num_threads(number)
    with contextlib.suppress(RuntimeError):  # may be set once only
        torch.set_num_interop_threads(1)


def fix_without_torch() -> None:
    """Give numpy's matrix products one thread."""
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
    if "numpy" in sys.modules:  # by a warm start: it has read these variables
        from threadpoolctl import threadpool_limits

        threadpool_limits(1)
