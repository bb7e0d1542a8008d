"""Time a prediction's work on the host for each GPU-sized batch, against Python lists: no model, no GPU.

The 69,766 reviews have lognormal lengths with mean 116 and at most 512 tokens, in batches of 65,536 tokens. The time
covers all work between two forward passes: selecting the reviews' tokens, padding, the mask, the result.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "workflow/scripts"))
REVIEWS, MEAN, LONGEST = 69_766, 116, 512


def reviews() -> Any:
    """Return random tokens of texts with these lengths."""
    import numpy as np

    from mllm.models.tokens import Tokens

    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(MEAN) - 0.25, 0.72, REVIEWS), 2, LONGEST).astype(int)
    return Tokens(rng.integers(0, 50_000, lengths.sum(), dtype=np.int32), np.cumsum(lengths), 0)


def as_lists(tokens: Any, batch: list[int]) -> Any:
    """Make batches from lists of numbers, which are padded as lists and then made tensors."""
    import torch

    rows = [tokens[i] for i in batch]
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    return ids, (torch.arange(longest)[None, :] < lengths[:, None]).long()


def scored(tokens: Any) -> Callable[[list[int]], Any]:
    """Make batches as the project does, with a model that computes nothing."""
    import torch

    from mllm.models.families.classifier import ClassifierScorer
    from mllm.prediction import run_model

    class Nothing(torch.nn.Module):
        """A model that returns at once."""

        device = torch.device("cpu")
        config = SimpleNamespace(num_labels=3, pad_token_id=0, model_type="bert", _attn_implementation="sdpa")

        def forward(self, input_ids: Any, **_: Any) -> Any:
            return SimpleNamespace(logits=torch.zeros(len(input_ids), 3))

    scorer, room = ClassifierScorer(Nothing(), None), run_model._Room()
    return lambda batch: run_model._Fetched(run_model._scored(scorer, tokens.batch(batch), room)).rows()


def main(arguments: argparse.Namespace) -> None:
    import numpy as np
    import torch

    from mllm.prediction import run_model

    torch.set_num_threads(1)
    tokens = reviews()
    batches = list(run_model._batches(tokens.lengths.tolist(), 65_536))
    print(f"{len(batches)} batches of {REVIEWS:,} reviews, {tokens.lengths.mean():.0f} tokens in the mean")
    ways: dict[str, Callable[[list[int]], Any]] = {
        "lists": lambda batch: as_lists(tokens, batch),
        "flat arrays": scored(tokens),
    }
    for name, way in ways.items():
        found = []
        for _ in range(arguments.runs):
            for batch in batches:
                begin = time.perf_counter()
                way(batch)
                found.append(time.perf_counter() - begin)
        ms = np.array(found) * 1000
        print(
            f"{name}: {np.median(ms):.2f} ms a batch in the median, {ms.mean():.2f} in the mean, {ms.max():.2f} at most"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    main(parser.parse_args())
