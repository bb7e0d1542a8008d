"""Silence the progress bars and messages of mergekit and transformers."""

import contextlib
import io
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[list[str]]:
    """Silence the progress bars and messages of mergekit and transformers; yield what mergekit logs meanwhile."""
    from transformers import logging as transformers_log

    said: list[str] = []

    def keep(record: logging.LogRecord) -> bool:
        said.append(record.getMessage())
        return False

    root, mergekit, verbosity = logging.getLogger(), logging.getLogger("mergekit"), transformers_log.get_verbosity()
    level = mergekit.level
    root.addFilter(keep)  # mergekit-moe logs to the root logger itself; records from other loggers pass this filter
    handler = logging.NullHandler()  # without a handler, the root logger would make one that writes to the stream below
    root.addHandler(handler)
    mergekit.setLevel(logging.ERROR)
    transformers_log.set_verbosity_error()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield said
    finally:
        root.removeFilter(keep)
        root.removeHandler(handler)
        mergekit.setLevel(level)
        transformers_log.set_verbosity(verbosity)
