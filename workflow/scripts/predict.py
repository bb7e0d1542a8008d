"""Predict the class log-probabilities of all validation and test reviews with one model."""

import argparse
import hashlib
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from mllm.core import compute, script, threads
from mllm.core.code_digest import code_digest
from mllm.core.files import once
from mllm.core.messages import log


def main(arguments: argparse.Namespace) -> None:
    script.offline()
    threads.fix(arguments.threads)
    compute.keep_freed_memory()
    from mllm.core import timing
    from mllm.data import labelled
    from mllm.models import cards, checkpoint_files, families, loading, tokens
    from mllm.prediction import asking, costs, prediction_tables, run_model, shards, taken_over

    names = arguments.names or labelled.task_facts(arguments.data, arguments.task)["names"]
    card = replace(cards.read(arguments.model), task=arguments.task)
    family, code = families.load(card.family), code_digest("predict", families.module(card.family))
    if card.family == families.HEADED:
        checkpoint_files.check_labels(arguments.model, names)
    rows = labelled.labelled(arguments.data, ("valid", "test"), arguments.task)
    dtype = run_model.dtype_of(arguments.dtype)
    asked = card.asked()
    identity = taken_over.identity(
        arguments.model, code, read_by(arguments, asked), asked, names, dtype, arguments.seed
    )
    if name := taken_over.take(arguments.output, arguments.cost, identity):
        log.info("the same predictions are finished as %s; taken over", name)
        return
    weights_mb = checkpoint_files.parameters(arguments.model) * (2 if dtype == "bfloat16" else 4) / 2**20
    script.usable_gpu(weights_mb, arguments.gpus)
    cost: dict[str, Any] = {}
    with timing.timed(cost, "load_seconds"):
        model, tokenizer = loading.load_model(arguments.model, card.family, spread=arguments.gpus > 1, dtype=dtype)
    scorer, _ = asking.scorer_of(asked, model, tokenizer, names, arguments.data, arguments.seed)
    key = shards_key(identity)
    kept = shards.Shards(arguments.shards, key, arguments.checkpoint_seconds) if arguments.shards else None
    texts = [*rows["review"].to_list(), *family.BESIDE]
    with timing.timed(cost, "tokenise_seconds"):
        reading = code_digest("tokenise", families.module(card.family))
        read = (
            tokens.shared(scorer, texts, arguments.tokens, reading)
            if arguments.tokens
            else tokens.encode(scorer, texts)
        )
    run_model.warm_up(scorer, read)
    cost["start_seconds"] = compute.seconds_since_start()
    with timing.timed(cost, "predict_seconds"):
        found = run_model.log_probabilities(scorer, read, kept)
    logp, beside = found[: rows.height], found[rows.height :]
    # A merge's training is its members', a blend's too: the leaderboard adds them up.
    cost |= {"n_parameters": model.num_parameters(), "train_seconds": card.train_seconds, "gpus": arguments.gpus, "dtype": dtype,
             "reviews": rows.height, "identity": identity}  # fmt: skip
    more = family.priors(logp, beside, (rows["split"] == "valid").to_numpy())
    cost |= speeds(scorer, read, [code, card.model, names], arguments, cost)
    begin = time.perf_counter()
    prediction_tables.write_predictions(arguments.output, rows, logp, **more)
    seconds = round(time.perf_counter() - begin, 6)
    costs.Cost(**cost, write_seconds=seconds).write(arguments.cost)
    taken_over.note(arguments.cost, identity)
    if kept:
        kept.remove()


def read_by(arguments: argparse.Namespace, asked: Any) -> list[str]:
    """Digests of the reviews that a model is asked about, and of those that its prompt may show."""
    from mllm.data import labelled

    shown = ["train"] if ((asked["model"] or {}).get("prompt") or {}).get("examples") else []
    tables = [labelled.labelled(arguments.data, (split,), arguments.task) for split in ("valid", "test", *shown)]
    return [labelled.digest(table) for table in tables]


def speeds(
    scorer: Any, read: Any, asked: list[Any], arguments: argparse.Namespace, cost: dict[str, Any]
) -> dict[str, Any]:
    """What the prediction of so many reviews took of this machine, as fields of its cost.

    Args:
        scorer: what predicted.
        read: the texts' tokens.
        asked: what the operations depend on beside the model's configuration, its number format and the reviews' length.
        arguments: of the script.
        cost: reviews, dtype and predict_seconds.
    """
    from mllm.core import timing
    from mllm.models import checkpoint_files
    from mllm.prediction import speed

    device, dtype, seconds = timing.device_name(), cost["dtype"], cost["predict_seconds"]
    shape = [*asked, (arguments.model / "config.json").read_text(encoding="utf-8"), dtype, speed.mean_review(read)]
    flops = once(arguments.tokens, "flops", shape, lambda: speed.counted_flops(scorer, read))
    machine = [os.uname().nodename, device, dtype, arguments.threads]
    peak = once(arguments.tokens, "peak", machine, lambda: speed.peak_flops(dtype))
    return {
        "weights_bytes": sum(f.stat().st_size for f in checkpoint_files.weight_files(arguments.model)),
        "device": device,
        "cut_reviews": read.cut,
        "mean_tokens": round(float(read.lengths.mean()), 2),
        "reviews_per_second": round(cost["reviews"] / seconds, 1),
        "tokens_per_second": round(len(read.flat) / seconds, 1),
        "flops_per_review": flops,
        "device_peak_flops": round(peak),
        "share_of_peak": None if flops is None else round(flops * cost["reviews"] / seconds / peak, 4),
        **timing.peak_memory(),
    }


def shards_key(identity: str) -> str:
    """Digest of all that unfinished predictions depend on; a GPU's batches are not a CPU's."""
    from mllm.core import gpu
    from mllm.prediction import run_model

    device = gpu.device()
    batches = [identity, device, run_model.TOKENS_PER_BATCH[device], run_model.OUTPUTS_PER_BATCH]
    return hashlib.sha256(json.dumps(batches).encode()).hexdigest()[:16]


if __name__ == "__main__":
    parser = script.parser(__doc__)
    parser.add_argument("--model", type=Path, required=True, help="model folder")
    parser.add_argument("--data", type=Path, required=True, help="folder that split_reviews wrote")
    parser.add_argument("--task", required=True)
    parser.add_argument(
        "--names", type=json.loads, help="the classes in a prompt's words, as JSON (default: the task's)"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gpus", type=int, default=1, help="GPUs over which the model's layers are spread")
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16"])
    parser.add_argument("--seed", type=int, default=17, help="of a prompt's examples")
    parser.add_argument("--shards", type=Path, help="folder for unfinished predictions; survives the job")
    parser.add_argument("--tokens", type=Path, help="folder where candidates that read alike share their tokens")
    parser.add_argument(
        "--checkpoint-seconds",
        type=float,
        default=float(os.environ.get("MLLM_CHECKPOINT_SECONDS", 30)),
        help="time between shards (default: $MLLM_CHECKPOINT_SECONDS, or 30)",
    )
    parser.add_argument("--output", type=Path, required=True, help="predictions to write (parquet)")
    parser.add_argument("--cost", type=Path, required=True, help="cost to write (JSON)")
    script.run(main, parser.parse_args())
