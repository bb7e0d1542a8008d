"""Time fine-tuning against a plain Trainer, in turn, in one process.

Both have the same model, reviews, batch size, steps and optimiser.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "workflow/scripts"))
NAMES = ["negative", "neutral", "positive"]


def bert(tokenizer: Any) -> Any:
    """Return a model of all-MiniLM-L6-v2's shape with random weights, with the same seed each time."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from mllm.models.heads import label_config

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536,
        pad_token_id=tokenizer.pad_token_id, **label_config(NAMES),
    )  # fmt: skip
    return BertForSequenceClassification(config)


def ours(rows: Any, tokenizer: Any, hyper: dict[str, Any], scratch: Path) -> float:
    """Return the seconds of train_expert's training."""
    from mllm.models import cards, training, training_rows

    parts = {"train": rows, "valid": rows[:0]}
    card: cards.Asked = {"family": "classifier", "task": "t", "model": {}}
    begin = time.perf_counter()
    reviews = training_rows.prepare(parts, NAMES, tokenizer, card, hyper)
    training.fine_tune(bert(tokenizer), tokenizer, reviews, "classifier", hyper, training.Checkpoints(scratch, 300))
    return time.perf_counter() - begin


def bare(rows: Any, tokenizer: Any, hyper: dict[str, Any], scratch: Path) -> float:
    """Return the seconds of the unchanged Trainer."""
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

    begin = time.perf_counter()
    ids = tokenizer(rows["review"].to_list(), truncation=True)["input_ids"]
    data = [{"input_ids": i, "labels": k} for i, k in zip(ids, rows["label_t"].to_list(), strict=True)]
    options = TrainingArguments(
        output_dir=str(scratch), num_train_epochs=hyper["epochs"], per_device_train_batch_size=hyper["batch_size"],
        learning_rate=hyper["learning_rate"], weight_decay=hyper["weight_decay"], seed=hyper["seed"], save_strategy="no",
        report_to="none", disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    Trainer(bert(tokenizer), options, train_dataset=data, data_collator=DataCollatorWithPadding(tokenizer)).train()
    return time.perf_counter() - begin


def main(arguments: argparse.Namespace) -> None:
    import polars as pl
    import torch

    from mllm.models.scratch import train_tokenizer

    torch.set_num_threads(arguments.threads)
    table = pl.read_csv(
        arguments.reviews, separator="\t", quote_char=None, ignore_errors=True, truncate_ragged_lines=True
    )
    texts = [t for t in table["review"].drop_nulls().to_list() if len(t) > 20]
    tokenizer = train_tokenizer(texts, 30000, 512)
    texts = texts[:: len(texts) // arguments.number][: arguments.number]
    rows = pl.DataFrame({"review": texts, "label_t": [i % 3 for i in range(len(texts))]})
    hyper = {"epochs": 1.0, "batch_size": 16, "learning_rate": 5e-5, "weight_decay": 0.01, "warmup": 0.0, "seed": 1}
    best = dict.fromkeys(("ours", "bare"), float("inf"))
    for _ in range(arguments.runs):
        for name, way in (("ours", ours), ("bare", bare)):
            with tempfile.TemporaryDirectory() as scratch:
                best[name] = min(best[name], way(rows, tokenizer, hyper, Path(scratch)))
    speed = {name: len(texts) / seconds for name, seconds in best.items()}
    print(
        f"fine-tuning all-MiniLM-L6-v2's shape, {len(texts)} reviews, {arguments.threads} threads, best of {arguments.runs}:"
        f" {speed['ours']:.1f} reviews/s; a bare Trainer {speed['bare']:.1f}: {speed['ours'] / speed['bare']:.2f} times"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reviews", type=Path, default=ROOT.parent / "shared/data/drugscom/drugsComTest_raw.tsv")
    parser.add_argument("--number", type=int, default=320)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    main(parser.parse_args())
