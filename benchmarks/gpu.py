"""Check this project's results on a GPU, then measure its speed. `make gpu` runs it after the tests marked `gpu`.

Each part is printed and added to the output file when it ends, so that an interrupted run keeps its measurements.
Weights and tokens are random, with real shapes and lengths; no network is needed. Without a GPU, `--rehearse` runs
every part with tiny models on the CPU: it shows that the program works, and measures nothing.
It is one long module: a function for each part, and the models that the parts share.
"""

import argparse
import contextlib
import json
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "workflow/scripts"), str(ROOT / "benchmarks")]

from mllm.execution import resources, warm  # noqa: E402

NAMES = ["negative", "neutral", "positive"]
Measured = dict[str, Any]


@contextlib.contextmanager
def on_cpu() -> Iterator[None]:
    """Compute on the CPU within this block, although there is a GPU."""
    from mllm.core import gpu

    there = gpu.device
    gpu.device = lambda: "cpu"
    try:
        yield
    finally:
        gpu.device = there


def synchronised(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds until the GPU has finished some work, and the work's result."""
    import torch

    def wait() -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    wait()
    begin = time.perf_counter()
    found = work()
    wait()
    return time.perf_counter() - begin, found


# ── Models of real shapes, with random weights ──


def tokenizer(longest: int = 512) -> Any:
    from mllm.models.scratch import train_tokenizer

    return train_tokenizer(
        ["some words to make a vocabulary of: negative neutral positive"] * 3, 300, longest, ended=True
    )


def model(kind: str, small: bool) -> tuple[str, Any]:
    """Return (family, model): GPT-2, BERT-base, FLAN-T5-base, LLaMA of 135M parameters; ``small`` keeps heads' size."""
    import torch
    import transformers as t

    from mllm.models.heads import label_config

    torch.manual_seed(0)
    width, layers, heads, words = (128, 2, 2, 300) if small else (768, 12, 12, 32_000)
    labels = label_config(NAMES)
    ends = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
    if kind == "gpt2":
        return "classifier", t.GPT2ForSequenceClassification(
            t.GPT2Config(n_embd=width, n_layer=layers, n_head=heads, vocab_size=300 if small else 50_257, n_positions=512,
                         **ends, **labels))  # fmt: skip
    if kind == "bert":
        return "classifier", t.BertForSequenceClassification(
            t.BertConfig(hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, vocab_size=words,
                         intermediate_size=4 * width, pad_token_id=1, **labels))  # fmt: skip
    if kind == "t5":
        made = t.T5ForConditionalGeneration(
            t.T5Config(d_model=width, d_kv=64, d_ff=width * 8 // 3, num_layers=layers, num_heads=heads, vocab_size=words,
                       feed_forward_proj="gated-gelu", decoder_start_token_id=1, eos_token_id=0, pad_token_id=1,
                       tie_word_embeddings=False))  # fmt: skip
        with torch.no_grad():
            made.lm_head.weight.mul_(
                width**-0.5
            )  # as of trained ones: random answers' log-likelihoods would be hundreds
        return "text2text", made
    width, layers, heads, words = (128, 2, 2, 300) if small else (576, 30, 9, 49_152)
    return "causal", t.LlamaForCausalLM(
        t.LlamaConfig(hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, vocab_size=words,
                      num_key_value_heads=1 if small else 3, intermediate_size=width * 8 // 3, tie_word_embeddings=True,
                      max_position_embeddings=512, **ends))  # fmt: skip


KINDS = ("gpt2", "bert", "t5", "llama")


def scorer(kind: str, small: bool, dtype: str = "float32", score: str = "likelihood") -> Any:
    import torch

    from mllm.models import cards, families

    prompt = {"template": "R: {review}\nIs it {labels}?", "words": {}, "chat": False, "score": score, "examples": 0}
    family, made = model(kind, small)
    card: cards.Asked = {"family": family, "task": "t", "model": {"prompt": prompt}}
    return families.load(family).scorer(card, made.to(getattr(torch, dtype)), tokenizer(), NAMES)


def reviews(number: int, words: int) -> Any:
    """Return random tokens of texts with the reviews' lengths."""
    import host_time
    import numpy as np

    from mllm.models.tokens import Tokens

    tokens = host_time.reviews()
    ends = tokens.ends[:number]
    return Tokens(np.minimum(tokens.flat[: ends[-1]] % words + 2, words - 1).astype(np.int32), ends, 0)


# ── The parts ──


def machine(small: bool) -> Measured:
    """Return versions, and the peak speed on random data."""
    import torch
    import transformers

    from mllm.core import timing
    from mllm.prediction import speed

    found: Measured = {"device": timing.device_name(), "torch": torch.__version__, "transformers": transformers.__version__,
                       "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}  # fmt: skip
    if torch.cuda.is_available():
        found["sm"] = "{}{}".format(*torch.cuda.get_device_capability())
    for dtype in ("float32", "bfloat16"):
        found[f"peak_tflops_{dtype}"] = round(speed.peak_flops(dtype) / 1e12, 2)
    return found


def predictions(small: bool) -> Measured:
    """Compare each family on 200 reviews: GPU with CPU, both formats, another batch size, with cuDNN."""
    import numpy as np
    import torch

    from mllm.core import gpu
    from mllm.prediction import run_model

    found: Measured = {}
    tokens = reviews(40 if small else 200, 300)
    settle = gpu.settle_attention
    for kind in KINDS:
        with on_cpu():
            plain = np.exp(run_model.log_probabilities(scorer(kind, True), tokens))
        budget = run_model.TOKENS_PER_BATCH[gpu.device()]
        ways = {"float32": ("float32", budget, settle), "bfloat16": ("bfloat16", budget, settle),
                "bfloat16, batches of 2,048": ("bfloat16", 2048, settle),
                "bfloat16, cuDNN": ("bfloat16", budget, lambda: torch.backends.cuda.enable_cudnn_sdp(True))}  # fmt: skip
        for name, (dtype, size, attention) in ways.items():
            run_model.TOKENS_PER_BATCH[gpu.device()], gpu.settle_attention = size, attention
            try:
                p = np.exp(run_model.log_probabilities(scorer(kind, True, dtype), tokens))
            finally:
                run_model.TOKENS_PER_BATCH[gpu.device()], gpu.settle_attention = budget, settle
            apart = np.abs(p - plain).max(1)
            found[f"{kind}, {name}"] = {
                "largest_difference": float(apart.max()),
                "tokens_there": int(tokens.lengths[apart.argmax()]),
                "flipped": float((p.argmax(1) != plain.argmax(1)).mean()),
            }
    return found


def throughput(small: bool) -> Measured:
    """Return reviews per second in bfloat16, the share of the peak that was measured here, and the memory used."""
    import torch

    from mllm.prediction import run_model
    from mllm.prediction import speed as flops

    found: Measured = {}
    peak = flops.peak_flops("bfloat16")
    for kind in KINDS:
        number = 60 if small else 69_766 if kind == "gpt2" else 16_000
        one = scorer(kind, small, "bfloat16")
        tokens = reviews(number, one.model.config.vocab_size)
        forget_memory()
        begun, _ = synchronised(partial(run_model.warm_up, one, tokens))
        with torch.inference_mode():
            first, _ = synchronised(partial(one.score, tokens.batch([0])))
        seconds, _ = synchronised(partial(run_model.log_probabilities, one, tokens))
        memory = memory_mb()
        operations = flops.flops_per_review(one, tokens) * number
        found[kind] = {"reviews_per_second": round(number / seconds, 1), "share_of_peak": round(operations / seconds / peak, 4),
                       "to_the_gpu_and_first_review_seconds": round(begun, 4), "next_review_seconds": round(first, 4),
                       "memory_mb": memory, "asked_for_mb": resources.predict_gpu_mb(shape_of(one.model), asked=kind in ("t5", "llama"))}  # fmt: skip
    return found


def shape_of(model: Any) -> resources.Shape:
    """Return a model's size, as the estimates know it."""
    facts = model.config.to_dict()
    width = next(facts[k] for k in ("n_embd", "hidden_size", "d_model") if k in facts)
    layers = next(facts[k] for k in ("n_layer", "num_hidden_layers", "num_layers") if k in facts)
    return resources.Shape(model.num_parameters(), layers, width)


def forget_memory() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def memory_mb() -> int | None:
    """Return torch's peak GPU memory since the last reset; torch's context needs about 500 MB more."""
    import torch

    return torch.cuda.max_memory_reserved() // 2**20 if torch.cuda.is_available() else None


def training(small: bool) -> Measured:
    """Return reviews per second of fine-tuning GPT-2 on reviews of real lengths, in batches of 16 and 64.

    The figure is the difference of two trainings of different length, whose starts and ends take equal time.
    """
    from mllm.models import training as ours
    from mllm.models.training_rows import Reviews

    found: Measured = {}
    few, many = (2, 4) if small else (60, 300)
    for batch in (16, 64, 128):
        tokens = reviews(many * batch, 300)
        rows = [{"input_ids": tokens[i], "answer": i % 3, "weight": 1.0} for i in range(len(tokens))]
        hyper = {"learning_rate": 1e-4, "batch_size": batch, "weight_decay": 0.0, "warmup": 0.0, "seed": 1}
        seconds = {}
        for steps in (few, many):
            made = model("gpt2", small)[1]
            with tempfile.TemporaryDirectory() as folder:
                where = ours.Checkpoints(Path(folder), 1e9)
                forget_memory()
                work = partial(
                    ours.fine_tune,
                    made,
                    tokenizer(),
                    Reviews(rows, [], 0),
                    "classifier",
                    hyper | {"steps": steps},
                    where,
                )
                seconds[steps], (_, facts) = synchronised(work)
        found[f"batches of {batch}"] = {
            "reviews_per_second": round((many - few) * batch / (seconds[many] - seconds[few]), 1),
            "start_and_end_seconds": round(seconds[few] - (seconds[many] - seconds[few]) * few / (many - few), 2),
            "last_loss": facts["loss"][-1]["loss"],
            "memory_mb": memory_mb(),
            "asked_for_mb": resources.train_gpu_mb(shape_of(made), batch, 512),
        }
    return found


def _made(merge: Any) -> dict[str, Any]:
    return dict(merge.tensors())


def merging(small: bool) -> Measured:
    """Return seconds of a complete merge of three models of GPT-2's size, on CPU and GPU; and differing entries."""
    import torch

    from mllm.core import gpu
    from mllm.experiment import merge_entries, recipes
    from mllm.merging.merge import Merge
    from mllm.models import cards, checkpoint_files

    found: Measured = {}
    with tempfile.TemporaryDirectory() as folder:
        names = ["base", "a", "b", "c"]
        made = model("gpt2", small)[1]
        for name in names:
            checkpoint_files.save(
                made, tokenizer(), Path(folder, name), cards.Base(family="classifier", task="t", model={}, seed=0)
            )
            with torch.no_grad():
                for p in made.parameters():
                    p.add_(torch.randn_like(p), alpha=0.002)
        more: dict[str, dict[str, float]] = {"linear": {}, "ties": {"density": 0.5}, "breadcrumbs": {"density": 0.6}}
        for name, values in more.items():
            entry = merge_entries.METHODS[name].model_validate({"method": name, "members": names[1:], **values})
            (recipe,) = recipes.expand(entry, list(entry.members), 17, "base")
            paths = {n: Path(folder, n) for n in names}
            here: dict[str, Any] = {}
            for device in dict.fromkeys(("cpu", gpu.device())):
                merge = Merge(recipe.canonical(), paths, paths["base"], device)
                seconds, here[device] = synchronised(partial(_made, merge))
                found[f"{name}, {device}, seconds"] = round(seconds, 3)
            one, other = here["cpu"], here[gpu.device()]
            found[f"{name}, entries that differ"] = sum(int((one[n] != other[n]).sum()) for n in one)
    return found


def jobs(small: bool) -> Measured:
    """Time complete predict jobs, cold and warm: seconds, and the prediction's share of them."""
    import polars as pl

    from mllm.data import labelled
    from mllm.models import cards, checkpoint_files

    found: Measured = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        number = 60 if small else 69_766
        texts = [f"a pill number {i} " + "some word " * (10 + i % 40) for i in range(number)]
        frame = pl.DataFrame({"review_id": range(number), "group": range(number), "review": texts,
                              "label_t": [i % 3 for i in range(number)]})  # fmt: skip
        for split, rows in (("valid", frame[: number // 4]), ("test", frame[number // 4 :])):
            rows.drop("label_t").write_parquet(folder / f"{split}.parquet")
        labels = frame.select("review_id", label="label_t")
        labelled.write_task(folder, "t", {"names": NAMES, "label": "sentiment"}, labels)
        card = cards.Base(family="classifier", task="t", model={}, seed=0)
        checkpoint_files.save(model("gpt2", small)[1], tokenizer(), folder / "model", card)
        with warm.offered() as environment:
            for job in ("cold", "cold, tokens there", "warm process's first", "its second", "its third"):
                out = folder / job.replace(" ", "-")
                words: list[str | Path] = ["python", ROOT / "workflow/scripts/predict.py", "--model", folder / "model", "--data", folder, "--task", "t",
                         "--tokens", folder / "tokens", "--output", out / "p.parquet", "--cost", out / "cost.json"]  # fmt: skip
                begin = time.perf_counter()
                if job.startswith("cold"):
                    subprocess.run([sys.executable, *words[1:]], check=True, stderr=subprocess.DEVNULL)
                else:
                    subprocess.run(
                        ["bash", "-c", shlex.join(map(str, words))],
                        env=environment,
                        check=True,
                        stderr=subprocess.DEVNULL,
                    )
                seconds = time.perf_counter() - begin
                cost = json.loads((out / "cost.json").read_text())
                parts = ("start_seconds", "load_seconds", "tokenise_seconds", "predict_seconds", "share_of_peak")
                share = round(cost["predict_seconds"] / seconds, 3)
                found[job] = {k: cost[k] for k in parts} | {"seconds": round(seconds, 2), "share_predicting": share}
    return found


PARTS = (machine, throughput, training, merging, predictions, jobs)


def main(arguments: argparse.Namespace) -> None:
    import torch

    if not torch.cuda.is_available() and not arguments.rehearse:
        sys.exit(
            "error: torch sees no GPU. Fix: check the driver with nvidia-smi, or use --rehearse, which measures nothing"
        )
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with arguments.output.open("a") as file:
        for part in PARTS:
            begin = time.perf_counter()
            try:
                found = part(arguments.rehearse)
            except Exception as error:  # the other parts are still useful
                found = {"error": f"{type(error).__name__}: {error}"}
            line = {
                "part": part.__name__,
                "rehearsal": arguments.rehearse,
                "seconds": round(time.perf_counter() - begin, 1),
            }
            file.write(json.dumps(line | {"found": found}) + "\n")
            file.flush()
            print(json.dumps(line | {"found": found}, indent=1), flush=True)
            if "error" in found and arguments.rehearse:
                sys.exit(1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output", type=Path, default=ROOT / "results/gpu.jsonl", help="file to add each part's line to"
    )
    parser.add_argument("--rehearse", action="store_true", help="use tiny models, also on the CPU; measure nothing")
    main(parser.parse_args())
