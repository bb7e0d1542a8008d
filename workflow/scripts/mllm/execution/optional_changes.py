"""Let a change of Snakemake switch itself off, with one line, if Snakemake differs from what the change expects."""

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any

from mllm.core.compute import version


def optional(without: str) -> Callable[[Callable[..., None]], Callable[..., bool]]:
    """Let a change switch itself off if Snakemake differs; the changed function returns whether it is on.

    Args:
        without: what the user notices without the change.
    """

    def decorate(change: Callable[..., None]) -> Callable[..., bool]:
        @functools.wraps(change)
        def guarded(*arguments: Any) -> bool:
            try:
                change(*arguments)
            except (ImportError, AttributeError) as error:
                found = f"Snakemake {version('snakemake')}: {change.__name__} is off ({error})"
                module = change.__module__.rsplit(".", 1)[-1]
                print(f"{found}; {without}. Fix: execution/{module}.py", file=sys.stderr)
                return False
            return True

        return guarded

    return decorate


def expects(function: Any, words: str) -> None:
    """Check that a function of Snakemake still works as a change expects.

    Raises:
        AttributeError: its source does not have these words.
    """
    if words not in inspect.getsource(function):
        raise AttributeError(f"{function.__qualname__} works in another way")
