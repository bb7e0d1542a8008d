"""Time label scoring against alternatives: lm-evaluation-harness, Trainer.predict, the pipeline.

All use the same random weights of real shapes and the same real reviews, in turn, in one process; each figure is the
best of some runs. lm-evaluation-harness has its own environment on top of the project's, since it needs an older
python-dateutil.
It is one long module: a function for each comparison, and the models that they share.
"""

import argparse
import copy
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "workflow/scripts"))
BESIDE = ROOT / "results/.lm-eval"
# Packages that lm-eval 0.4.13 needs beyond the project's environment.
NEEDED = (
    "lm_eval==0.4.13", "evaluate==0.4.6", "sqlitedict", "pytablewriter", "dataproperty", "mbstrdecoder", "pathvalidate",
    "tabledata", "tcolorpy", "typepy", "chardet", "word2number", "sacrebleu", "rouge-score", "more-itertools", "portalocker",
    "colorama", "lxml", "absl-py", "nltk", "python-dateutil==2.9.0.post0", "six", "pytz",
)  # fmt: skip
TEMPLATE = "Drug review: {review}\nQuestion: is it {labels}?\nAnswer:"
WORDS = {3: ["negative", "neutral", "positive"], 10: [str(i) for i in range(1, 11)]}
MULTI = ["clearly negative", "rather neutral", "clearly positive"]


def beside() -> None:
    """Restart in the environment that also has lm-eval."""
    if os.environ.get("MLLM_BESIDE"):
        return
    if not (BESIDE / "ready").exists():
        venv.create(BESIDE, with_pip=False)
        (packages,) = BESIDE.glob("lib/python3*/site-packages")
        own = next(p for p in sys.path if p.endswith("site-packages"))
        (packages / "base.pth").write_text(own + "\n")
        uv = [str(Path(sys.executable).with_name("uv"))] if Path(sys.executable).with_name("uv").exists() else ["uv"]
        subprocess.run(
            [*uv, "pip", "install", "-q", "--python", BESIDE / "bin/python", "--no-deps", *NEEDED], check=True
        )
        (BESIDE / "ready").touch()
    os.environ.update(MLLM_BESIDE="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    python = str(BESIDE / "bin/python")
    os.execv(python, [python, *sys.argv])


def best(runs: int, *ways: Callable[[], Any]) -> list[tuple[float, Any]]:
    """Return (best seconds, result) of each way; the ways run in turn."""
    found: list[tuple[float, Any]] = [(float("inf"), None)] * len(ways)
    for _ in range(runs):
        for i, way in enumerate(ways):
            begin = time.perf_counter()
            result = way()
            found[i] = min(found[i], (time.perf_counter() - begin, result), key=lambda pair: pair[0])
    return found


def language_models(reviews: list[str], tokenizer: Any, runs: int) -> None:
    """Time FLAN-T5-small's shape with 3 and 10 labels, and a 135M LLaMA's with 3 labels of several tokens."""
    models = shapes(tokenizer)
    for name, words in (("FLAN-T5-small", WORDS[3]), ("FLAN-T5-small", WORDS[10]), ("LLaMA-135M", MULTI)):
        beside_lm_eval(*models[name], words, reviews, tokenizer, runs)


def beside_lm_eval(name: str, model: Any, words: list[str], reviews: list[str], tokenizer: Any, runs: int) -> None:
    """Score one model's labels by both."""
    import numpy as np
    import torch
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from scipy.special import log_softmax

    from mllm.models import prompts, tokens
    from mllm.models.families import causal, text2text

    spec = {"template": TEMPLATE, "words": {}, "chat": False}
    prompt = prompts.build(spec, "sentiment", words, tokenizer, name == "causal")
    # The harness scores labels without the end of sequence.
    labels = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in prompt.words]
    kind = causal.CausalScorer if name == "causal" else text2text.Text2TextScorer
    scorer = kind(copy.deepcopy(model), tokenizer, prompt, labels)
    backend = "causal" if name == "causal" else "seq2seq"
    theirs = HFLM(pretrained=model, tokenizer=tokenizer, backend=backend, batch_size=16, device="cpu", max_length=1024)
    asked = [
        Instance("loglikelihood", {}, (prompt.before + review + prompt.after, word), i)
        for i, review in enumerate(reviews)
        for word in prompt.words
    ]
    (seconds, logp), (slower, found) = best(
        runs, lambda: predicted(scorer, reviews), lambda: theirs.loglikelihood(asked, disable_tqdm=True)
    )
    expected = np.array([value for value, _ in found]).reshape(len(reviews), len(words))
    with torch.inference_mode():
        raw = np.stack([scorer.score(tokens.Batch.of([ids]))[0].numpy() for ids in scorer.encode(reviews[:16])[0]])
    print(
        f"{name}, {len(words)} labels of {min(map(len, labels))} to {max(map(len, labels))} tokens:"
        f" {len(reviews) / seconds:.1f} reviews/s, lm-eval {len(reviews) / slower:.1f}: {slower / seconds:.2f} times;"
        f" log-likelihoods (mean {expected.mean():.0f}) differ by at most {np.abs(raw - expected[:16]).max():.1e},"
        f" log-probabilities by {np.abs(logp - log_softmax(expected, 1)).max():.1e}",
        flush=True,
    )


def predicted(scorer: Any, reviews: list[str]) -> Any:
    """Predict as the project does, including tokenisation."""
    from mllm.models import tokens
    from mllm.prediction import run_model

    return run_model.log_probabilities(scorer, tokens.encode(scorer, reviews))


def shapes(tokenizer: Any) -> dict[str, tuple[str, Any]]:
    """Return name -> (family, model): FLAN-T5-small's, a 135M LLaMA's and GPT-2's shape, with random weights."""
    import torch
    from transformers import (
        GPT2Config,
        GPT2ForSequenceClassification,
        LlamaConfig,
        LlamaForCausalLM,
        T5Config,
        T5ForConditionalGeneration,
    )

    from mllm.models.heads import label_config

    torch.manual_seed(0)
    t5 = T5ForConditionalGeneration(
        T5Config(
            vocab_size=32128, d_model=512, d_kv=64, d_ff=1024, num_layers=8, num_heads=6, feed_forward_proj="gated-gelu",
            tie_word_embeddings=False, decoder_start_token_id=0, pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip
    # Scaled like a tied head: otherwise random weights give log-likelihoods of -300, whose rounding hides differences.
    t5.lm_head.weight.data *= t5.config.d_model**-0.5
    llama = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=49152, hidden_size=576, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
            intermediate_size=1536, max_position_embeddings=2048, tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip
    gpt2 = GPT2ForSequenceClassification(GPT2Config(pad_token_id=tokenizer.pad_token_id, **label_config(WORDS[10])))
    found = {"FLAN-T5-small": ("text2text", t5), "LLaMA-135M": ("causal", llama), "GPT-2": ("classifier", gpt2)}
    return {name: (family, model.eval()) for name, (family, model) in found.items()}


def start_up(reviews: list[str], tokenizer: Any) -> None:
    """Time complete `predict` jobs as the workflow starts them: time to the first batch, and peak memory."""
    import polars as pl

    from mllm.models import cards, checkpoint_files

    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        frame = pl.DataFrame({"review_id": range(len(reviews)), "group": range(len(reviews)), "review": reviews})
        frame = frame.with_columns(label_rating=pl.lit(0))
        for split, part in (("train", frame[:0]), ("valid", frame[:9]), ("test", frame[9:])):
            part.write_parquet(home / f"{split}.parquet")
        tasks = {"rating": {"names": WORDS[10], "ordered": True}}
        (home / "split.json").write_text(json.dumps({"tasks": tasks}))
        spec = {"template": TEMPLATE, "words": {}, "chat": False, "score": "likelihood", "examples": 0}
        for name, (family, model) in shapes(tokenizer).items():
            card = cards.Base(family=family, task="rating", model={"prompt": spec}, seed=0)
            checkpoint_files.save(model, tokenizer, home / name, card)
            command: list[str | Path] = [
                sys.executable, ROOT / "workflow/scripts/predict.py", "--model", home / name, "--data", home,
                "--task", "rating", "--output", home / "p.parquet", "--cost", home / "p.json",
            ]  # fmt: skip
            for turn in ("first", "second"):
                subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
                cost = json.loads((home / "p.json").read_text())
                weights = cost["weights_bytes"] / 2**30
                print(
                    f"{name}, {turn} start: {cost['start_seconds']:.1f} s to the first batch, {cost['load_seconds']:.1f} of them"
                    f" loading the model; memory {cost['peak_memory_bytes'] / 2**30:.2f} GB, weights {weights:.2f} GB",
                    flush=True,
                )


def classifiers(reviews: list[str], tokenizer: Any, runs: int) -> None:
    """Time GPT-2's shape against Trainer.predict and the pipeline."""
    import numpy as np
    import torch
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments, pipeline

    from mllm.models.families.classifier import ClassifierScorer

    _, model = shapes(tokenizer)["GPT-2"]
    scorer = ClassifierScorer(copy.deepcopy(model), tokenizer)
    with tempfile.TemporaryDirectory() as scratch:
        options = TrainingArguments(
            output_dir=scratch, per_device_eval_batch_size=16, report_to="none", disable_tqdm=True, use_cpu=True
        )
        trainer = Trainer(model, options, data_collator=DataCollatorWithPadding(tokenizer))

        def by_trainer() -> Any:
            rows = [{"input_ids": ids} for ids in tokenizer(reviews, truncation=True)["input_ids"]]
            return torch.from_numpy(trainer.predict(rows).predictions).log_softmax(-1).numpy()

        pipe = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu", top_k=None)
        (own, logp), (slow, expected), (piped, _) = best(
            runs,
            lambda: predicted(scorer, reviews),
            by_trainer,
            lambda: pipe(reviews, truncation=True),
        )
    print(
        f"classifier, GPT-2 124M: {len(reviews) / own:.1f} reviews/s; Trainer.predict (16) {len(reviews) / slow:.1f}:"
        f" {slow / own:.2f} times; pipeline {len(reviews) / piped:.1f}: {piped / own:.2f} times; log-probabilities differ by"
        f" at most {np.abs(logp - expected).max():.1e}"
    )


def compiled(reviews: list[str], tokenizer: Any) -> None:
    """Time GPT-2's shape under torch.compile with a few padded lengths: is compiling faster within one job?"""
    import torch

    from mllm.models import tokens
    from mllm.models.families.classifier import ClassifierScorer

    _, model = shapes(tokenizer)["GPT-2"]
    read = tokens.encode(ClassifierScorer(model, tokenizer), reviews)
    batches = []
    for length in (64, 128, 256, 1024):
        mine = [
            read[i]
            for i in range(len(read))
            if length // 2 < read.lengths[i] <= length or length == 64 > read.lengths[i]
        ]
        size = max(1, 1024 // length)
        for i in range(0, len(mine) // size * size, size):
            rows = [[*row, *[model.config.pad_token_id] * (length - len(row))] for row in mine[i : i + size]]
            batches.append(torch.tensor(rows))
    number, shapes_ = sum(map(len, batches)), {tuple(b.shape) for b in batches}
    fast = torch.compile(model, dynamic=False)
    with torch.inference_mode():
        seconds = {}
        for name, way in (("plain", model), ("first", fast), ("plain again", model), ("compiled", fast)):
            begin = time.perf_counter()
            for batch in batches:
                way(input_ids=batch)
            seconds[name] = time.perf_counter() - begin
    plain, after = min(seconds["plain"], seconds["plain again"]), seconds["compiled"]
    lost, won = seconds["first"] - after, (plain - after) / number
    print(
        f"torch.compile, GPT-2, {number} reviews in {len(shapes_)} shapes: plain {number / plain:.1f} reviews/s, compiled"
        f" {number / after:.1f} after {lost:.0f} s of compiling: pays from {lost / won if won > 0 else float('inf'):,.0f} reviews"
    )


def main(arguments: argparse.Namespace) -> None:
    beside()
    import polars as pl
    import torch

    from mllm.models.scratch import train_tokenizer

    torch.set_num_threads(arguments.threads)
    table = pl.read_csv(
        arguments.reviews, separator="\t", quote_char=None, ignore_errors=True, truncate_ragged_lines=True
    )
    texts = [t for t in table["review"].drop_nulls().to_list() if len(t) > 20]
    tokenizer = train_tokenizer(texts, 32000, 1024)
    reviews = texts[:: len(texts) // arguments.number][: arguments.number]
    lengths = [len(ids) for ids in tokenizer(reviews)["input_ids"]]
    print(f"{len(reviews)} reviews of {min(lengths)} to {max(lengths)} tokens, mean {sum(lengths) / len(lengths):.0f};"
          f" {arguments.threads} threads, best of {arguments.runs}")  # fmt: skip
    start_up(reviews, tokenizer)
    language_models(reviews, tokenizer, arguments.runs)
    classifiers(reviews, tokenizer, arguments.runs)
    compiled(reviews, tokenizer)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reviews", type=Path, default=ROOT.parent / "shared/data/drugscom/drugsComTest_raw.tsv")
    parser.add_argument("--number", type=int, default=64)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    main(parser.parse_args())
