"""Dry runs of large grids: what Snakemake works out for every job, though it is always the same, is kept."""

import atexit
import functools
import gc


def install() -> None:
    """Keep what does not change while the jobs of a grid are worked out.

    Measured with 1,000 merges under the Slurm profile (benchmarks/dry_run.py): 7.1 s without, 5.4 s with the functions'
    parameters kept; garbage collection was a sixth before.
    """
    from snakemake import common, rules

    # Thousands of merges make millions of small objects that all stay: looking for garbage among them is vain.
    gc.set_threshold(1_000_000, 20, 100)
    # … and taking them apart one by one before the process ends, too: a second of six.
    atexit.register(gc.freeze)
    # The parameter names of a rule's functions, which Snakemake looks up by reflection at each call of each of them.
    if not hasattr(common.get_function_params, "cache_info"):
        common.get_function_params = rules.get_function_params = functools.cache(common.get_function_params)
