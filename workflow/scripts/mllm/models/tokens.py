"""Texts as tokens, made once for all candidates that read them alike."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mllm.core.arrays import Array
from mllm.core.files import whole
from mllm.core.messages import log, progress

AT_ONCE = 200  # texts: tokenizers keep far more of each than its tokens until they are done


@dataclass(frozen=True)
class Tokens:
    """Texts as tokens, one after the other in an array: lists of Python's numbers take nine times the memory.

    Args:
        flat: (tokens,) int32.
        ends: (texts,) where each text's tokens end.
        cut: number of texts that were too long.
    """

    flat: Array
    ends: Array
    cut: int

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, i: int) -> list[int]:
        found: list[int] = self.flat[self.ends[i - 1] if i else 0 : self.ends[i]].tolist()
        return found

    @property
    def lengths(self) -> Array:
        """(texts,) number of tokens."""
        return np.diff(self.ends, prepend=0)


def encode(scorer: Any, texts: Sequence[str]) -> Tokens:
    """Tokens of all texts, as a model's family reads them."""
    rows: list[Array] = []
    lengths: list[int] = []
    cut = 0
    for first in progress(range(0, len(texts), AT_ONCE), "tokens", unit="batch"):
        ids, too_long = scorer.encode(texts[first : first + AT_ONCE])
        rows.append(np.fromiter((i for row in ids for i in row), np.int32))
        lengths += map(len, ids)
        cut += too_long
    if cut:
        log.info("%s of %s reviews are cut: too long", f"{cut:,}", f"{len(texts):,}")
    return Tokens(np.concatenate([np.empty(0, np.int32), *rows]), np.cumsum(lengths, dtype=np.int64), cut)


def shared(scorer: Any, texts: Sequence[str], folder: Path, code: str) -> Tokens:
    """The same, taken from a file that another candidate left in a folder, or left there for the next.

    The file is named by everything that its tokens depend on, ``code`` among them, so that none is ever out of date.
    """
    how = scorer.reads_as()
    if how is None:
        return encode(scorer, texts)
    identity = hashlib.sha256(f"{code} {how}".encode())
    for text in texts:
        identity.update(f"{len(text)} {text}".encode())
    file = folder / f"{identity.hexdigest()[:16]}.npz"
    if file.exists():
        log.info("tokens are those of %s", file)
        with np.load(file) as kept:
            return Tokens(kept["flat"], kept["ends"], int(kept["cut"]))
    found = encode(scorer, texts)
    with whole(file) as partial, partial.open("wb") as stream:
        np.savez(stream, flat=found.flat, ends=found.ends, cut=found.cut)
    return found


def reading(tokenizer: Any, *more: Any) -> str | None:
    """What tokens depend on: all of a tokenizer, what else is given; None for tokenizers in Python, which hide theirs."""
    if not tokenizer.is_fast:
        return None
    parts = json.loads(tokenizer.backend_tokenizer.to_str())
    for left_behind in ("padding", "truncation"):  # by whatever used it last; each use says its own
        parts.pop(left_behind, None)
    return repr((parts, tokenizer.model_max_length, tokenizer.truncation_side, tokenizer.eos_token_id, *more))
