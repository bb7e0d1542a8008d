"""Encode texts as tokens, once for all candidates that read them alike."""

import functools
import hashlib
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mllm.core.arrays import Array
from mllm.core.files import whole
from mllm.core.messages import log, progress
from mllm.models.tokenizers import check_distinct

AT_ONCE = 200  # texts per call: until it ends, a tokenizer keeps far more of each text than its tokens


@dataclass(frozen=True)
class Batch:
    """The tokens of some reviews, concatenated.

    Args:
        flat: (tokens,) whole numbers.
        lengths: (reviews,) number of tokens of each.
    """

    flat: Array
    lengths: Array

    @classmethod
    def of(cls, rows: "Batch | Sequence[Sequence[int]]") -> "Batch":
        """Make a batch from lists of tokens; return a batch as it is."""
        if isinstance(rows, Batch):
            return rows
        return cls(np.fromiter((i for row in rows for i in row), np.int64), np.array([len(row) for row in rows]))

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def ragged(self) -> bool:
        """Whether some reviews are longer than others."""
        return bool((self.lengths != self.lengths[0]).any())

    @property
    def places(self) -> Array:
        """(tokens,) place of each token in its review, from 0 on."""
        return np.arange(len(self.flat)) - np.repeat(np.cumsum(self.lengths) - self.lengths, self.lengths)

    def part(self, first: int, last: int) -> "Batch":
        """Return the reviews from ``first`` to before ``last``."""
        ends = np.concatenate([[0], np.cumsum(self.lengths)])
        return Batch(self.flat[ends[first] : ends[last]], self.lengths[first:last])

    def begin_with(self, prefix: list[int]) -> bool:
        """Return whether all reviews begin with these tokens, and have more."""
        if not (self.lengths > len(prefix)).all():
            return False
        begins = np.cumsum(self.lengths) - self.lengths
        return bool((self.flat[begins[:, None] + np.arange(len(prefix))] == prefix).all())

    def without_first(self, number: int) -> "Batch":
        """Return the batch without the first ``number`` tokens of each review."""
        return Batch(self.flat[self.places >= number], self.lengths - number) if number else self


@dataclass(frozen=True)
class Tokens:
    """Texts as tokens, concatenated in an array: lists of Python's numbers take nine times the memory.

    Args:
        flat: (tokens,) int32.
        ends: (texts,) end of each text's tokens.
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

    def batch(self, chosen: Sequence[int]) -> Batch:
        """Return some of the texts, in this order."""
        ends = self.ends[chosen]
        lengths = self.lengths[chosen]
        # The place of each token: its text's begin, plus its place in the text.
        behind = np.repeat(ends - np.cumsum(lengths), lengths)
        return Batch(self.flat[behind + np.arange(len(behind))], lengths)

    @functools.cached_property
    def lengths(self) -> Array:
        """(texts,) number of tokens."""
        return np.diff(self.ends, prepend=0)


def encode(scorer: Any, texts: Sequence[str]) -> Tokens:
    """Encode all texts as a model's family reads them."""
    rows: list[Array] = []
    lengths: list[int] = []
    cut = 0
    for first in progress(range(0, len(texts), AT_ONCE), "tokens", unit="batch"):
        ids, too_long = scorer.encode(texts[first : first + AT_ONCE])
        if not first:
            check_distinct(ids, texts[: len(ids)])
        rows.append(np.fromiter((i for row in ids for i in row), np.int32))
        lengths += map(len, ids)
        cut += too_long
    if cut:
        log.info("%s of %s reviews are too long and are cut", f"{cut:,}", f"{len(texts):,}")
    return Tokens(np.concatenate([np.empty(0, np.int32), *rows]), np.cumsum(lengths, dtype=np.int64), cut)


def shared(scorer: Any, texts: Sequence[str], folder: Path, code: str) -> Tokens:
    """Encode all texts, or read the tokens from a file that another candidate wrote; write that file for the next one.

    The file is named by a digest of everything that its tokens depend on, with ``code``: no file is ever out of date.
    """
    how = scorer.reads_as()
    if how is None:
        return encode(scorer, texts)
    identity = hashlib.sha256(f"{code} {how}".encode())
    for text in texts:
        identity.update(f"{len(text)} {text}".encode())
    file = folder / f"{identity.hexdigest()[:16]}.npz"
    if file.exists():
        try:
            with np.load(file) as kept:
                found = Tokens(kept["flat"], kept["ends"], int(kept["cut"]))
            log.info("tokens are read from %s", file)
            return found
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:  # damaged, or deleted meanwhile
            log.warning("%s cannot be read and is replaced: %s", file, error)
    found = encode(scorer, texts)
    with whole(file) as partial, partial.open("wb") as stream:
        np.savez(stream, flat=found.flat, ends=found.ends, cut=found.cut)
    return found


def reading(tokenizer: Any, *more: Any) -> str | None:
    """Return everything that tokens depend on: the tokenizer and ``more``; None for tokenizers in Python, which hide it."""
    if not tokenizer.is_fast:
        return None
    parts = json.loads(tokenizer.backend_tokenizer.to_str())
    for left_behind in ("padding", "truncation"):  # by the last use; each use sets its own
        parts.pop(left_behind, None)
    return repr((parts, tokenizer.model_max_length, tokenizer.truncation_side, tokenizer.eos_token_id, *more))
