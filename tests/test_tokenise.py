"""Make tokens before predictions: each prediction of every family that reads texts the same way finds the same ones."""

import argparse
import json

import polars as pl
import pytest
import torch
import transformers

import predict
import tokenise
from conftest import write_split
from mllm.models import cards, checkpoint_files, families, scratch
from test_families import ARCHITECTURES, CASES, NAMES, PROMPT, TEXTS


def asked(root, **more):
    values = {"model": root / "model", "data": root / "data", "task": "t", "names": None, "seed": 3}
    return argparse.Namespace(**values, **more)


@pytest.mark.parametrize(("family", "architecture"), CASES)
def test_a_prediction_finds_its_tokens(family, architecture, tmp_path, monkeypatch):
    numbers = range(len(TEXTS))
    frame = pl.DataFrame({"review_id": numbers, "group": numbers, "review": TEXTS, "label_t": [i % 2 for i in numbers]})
    (tmp_path / "data").mkdir()
    write_split(tmp_path / "data", NAMES, train=frame[:80], valid=frame[80:90], test=frame[90:])
    torch.manual_seed(5)
    model = ARCHITECTURES[architecture]()
    if family == families.HEADED:
        model.config.num_labels, model.config.id2label = len(NAMES), dict(enumerate(NAMES))
        model = transformers.AutoModelForSequenceClassification.from_config(model.config)
    card = cards.Base(family=family, task="t", model={"prompt": PROMPT}, seed=5)
    checkpoint_files.save(model, scratch.train_tokenizer(TEXTS, 300, 64, ended=True), tmp_path / "model", card)
    tokenise.main(asked(tmp_path, output=tmp_path / "tokens/base.json"))
    (kept,) = (tmp_path / "tokens").glob("*.npz")
    facts = json.loads((tmp_path / "tokens/base.json").read_text())
    assert facts["texts"] == 160 + len(families.load(family).BESIDE) and facts["tokens"] > facts["texts"]
    before = kept.stat().st_mtime_ns
    for name, folder in (("one", tmp_path / "tokens"), ("other", None)):
        more = {"prompt": None, "first_layers": 0, "threads": 1, "gpus": 1, "dtype": "float32", "shards": None, "tokens": folder, "checkpoint_seconds": 9,
                "output": tmp_path / f"{name}.parquet", "cost": tmp_path / f"{name}.cost.json"}  # fmt: skip
        predict.main(asked(tmp_path, **more))
    assert [*(tmp_path / "tokens").glob("*.npz")] == [kept] and kept.stat().st_mtime_ns == before
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "other.parquet").read_bytes()
