"""What a prediction's host does for each batch of a GPU's size, beside lists of Python's numbers: no model, no GPU.

69,766 reviews with the lengths of a lognormal distribution, of mean 116 tokens and at most 512, in batches of 65,536
tokens. Timed is all that stands between two forward passes: choosing the reviews' tokens, padding, the mask, the result.
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
    """Random tokens in texts of such lengths."""
    import numpy as np

    from mllm.models.tokens import Tokens

    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(MEAN) - 0.25, 0.72, REVIEWS), 2, LONGEST).astype(int)
    return Tokens(rng.integers(0, 50_000, lengths.sum(), dtype=np.int32), np.cumsum(lengths), 0)


def as_lists(tokens: Any, batch: list[int]) -> Any:
    """The plain way: lists of numbers, padded as lists, then made a tensor."""
    import torch

    rows = [tokens[i] for i in batch]
    longest = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    return ids, (torch.arange(longest)[None, :] < lengths[:, None]).long()


def scored(tokens: Any) -> Callable[[list[int]], Any]:
    """The project's own way, around a model that does nothing."""
    import torch

    from mllm.models.families.classifier import ClassifierScorer
    from mllm.prediction import run_model

    class Nothing(torch.nn.Module):
        """Answers at once."""

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
