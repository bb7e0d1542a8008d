"""Parts of messages: lists of names, nearest spellings, values as the user wrote them, times."""

import difflib
import re
from collections.abc import Iterable
from typing import Any


def listed(names: Iterable[str]) -> str:
    shown = [str(n) for n in names]
    return ", ".join(shown[:20]) + (f", … ({len(shown)} in all)" if len(shown) > 20 else "") if shown else "nothing"


def nearest(name: str, allowed: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def show(value: Any) -> str:
    if value is None:
        return "nothing"
    text = repr(value) if not isinstance(value, bool) else str(value).lower()
    return text if len(text) <= 60 else text[:57] + "…"


def without_markdown(text: str) -> str:
    """Return this project's Markdown for a terminal: without marks of headings, bold or code, or escapes."""
    plain = re.sub(r"^#+ ", "", text, flags=re.M)
    plain = re.sub(r"\*\*(.+?)\*\*|`([^`]+)`", lambda m: m[1] or m[2], plain)
    return re.sub(r"\\([\\`*\[\]<>#|~&])", r"\1", plain)


def in_time(seconds: float) -> str:
    """Return a time in words: ``14 s``, ``6 min``, ``2.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
