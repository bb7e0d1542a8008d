"""Test bases, training and prediction on tiny models: they are reproducible, resumable and equal to the plain way."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import MixtralConfig, MixtralForSequenceClassification

from conftest import SCRIPTS, run_script, write_split
from mllm.core import files
from mllm.data import labelled
from mllm.models import checkpoint_files, loading, scratch, tokens, training, training_rows
from mllm.models.families.classifier import ClassifierScorer
from mllm.prediction import run_model, speed
from tiny_models import predicted, tiny_bert, tiny_gpt2

TEXTS = [f"{'good great' if i % 2 else 'bad awful'} pill number {i} {'word ' * (i % 17)}" for i in range(240)]
SPEC = {
    "name": "tiny", "family": "classifier", "source": "scratch", "architecture": "gpt2", "width": 32, "layers": 2, "heads": 2,
    "vocabulary": 300, "max_length": 24, "pretrain": {"steps": 5, "batch_size": 4, "learning_rate": 1e-3},
}  # fmt: skip
HYPER = {"steps": 40, "learning_rate": 2e-3, "batch_size": 16, "weight_decay": 0.01, "warmup": 0.1, "seed": 3}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    labels = [i % 2 for i in range(len(TEXTS))]
    frame = pl.DataFrame(
        {"review_id": range(len(TEXTS)), "group": range(len(TEXTS)), "review": TEXTS, "label_t": labels}
    )
    write_split(folder, ["bad", "good"], train=frame[:160], valid=frame[160:200], test=frame[200:])
    return folder


@pytest.fixture(scope="module")
def base(data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("models") / "base"
    run_script("prepare_base", *base_arguments(data), "--output", out)
    return out


def base_arguments(data, seed=3):
    return ["--model", json.dumps(SPEC), "--data", data, "--task", "t", "--seed", seed]


def train_arguments(data, base, folder, **hyper):
    return [
        "--base", base, "--data", data, "--task", "t", "--part", "{}", "--hyper", json.dumps({**HYPER, **hyper}),
        "--checkpoints", folder / "checkpoints", "--output", folder / "expert",
    ]  # fmt: skip


def fine_tune(model, tokenizer, data, hyper, folder):
    parts = {split: labelled.with_labels(data, split, "t") for split in ("train", "valid")}
    card = {"family": "classifier", "task": "t"}
    reviews = training_rows.prepare(parts, ["bad", "good"], tokenizer, card, hyper)
    return training.fine_tune(model, tokenizer, reviews, "classifier", hyper, training.Checkpoints(folder, 300))


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def expert(data, base, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    run_script("train_expert", *train_arguments(data, base, folder))
    assert not (folder / "checkpoints").exists()
    return folder / "expert"


def test_a_base_is_the_same_bytes_again_and_another_with_another_seed(data, base, tmp_path):
    run_script("prepare_base", *base_arguments(data), "--output", tmp_path / "again")
    run_script("prepare_base", *base_arguments(data, seed=4), "--output", tmp_path / "other")
    assert weights(tmp_path / "again") == weights(base)
    assert weights(tmp_path / "other") != weights(base)
    assert (tmp_path / "again/tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()


def test_a_pretrained_checkpoint_gets_a_fresh_head_and_keeps_its_body(data, base, expert, tmp_path):
    """As for a model from the hub, the folder's own head of the same size must not survive."""
    spec = {"name": "x", "family": "classifier", "source": "local", "path": str(expert), "max_length": 16}
    arguments = ["--model", json.dumps(spec), "--checkpoint", expert, "--data", data, "--task", "t"]
    for name, seed in (("one", 1), ("same", 1), ("two", 2)):
        run_script("prepare_base", *arguments, "--seed", seed, "--output", tmp_path / name)
    one, two, old = (load_file(f / "model.safetensors") for f in (tmp_path / "one", tmp_path / "two", expert))
    assert weights(tmp_path / "one") == weights(tmp_path / "same")
    assert {k for k in one if not torch.equal(one[k], two[k])} == {"score.weight"}
    assert {k for k in one if not torch.equal(one[k], old[k])} == {"score.weight"}
    _, tokenizer = loading.load_model(tmp_path / "one")
    assert tokenizer.model_max_length == 16
    spec["max_length"] = 400
    printed = run_script(
        "prepare_base", "--model", json.dumps(spec), *arguments[2:], "--seed", 1, "--output", tmp_path / "no", ok=False
    )
    assert "max_length is 400" in printed
    assert "24 positions" in printed


def test_a_language_model_as_the_hub_ships_it(data, tmp_path):
    """The folder has GPT-2's own form: bare tensor names, a tied head, a tokenizer without padding."""
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    folder = tmp_path / "gpt2"
    model = GPT2LMHeadModel(GPT2Config(vocab_size=300, n_positions=64, n_embd=32, n_layer=2, n_head=2))
    model.transformer.save_pretrained(folder)  # wte.weight, not transformer.wte.weight
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["GPT2LMHeadModel"]}))
    made = scratch.train_tokenizer(TEXTS, 300, 64)
    PreTrainedTokenizerFast(tokenizer_object=made.backend_tokenizer, eos_token=scratch.END).save_pretrained(folder)
    spec = {"name": "x", "family": "classifier", "source": "local", "path": str(folder), "max_length": 32}
    arguments = ["--model", json.dumps(spec), "--checkpoint", folder, "--data", data, "--task", "t", "--seed", 1]
    run_script("prepare_base", *arguments, "--output", tmp_path / "base")
    old, new = load_file(folder / "model.safetensors"), load_file(tmp_path / "base/model.safetensors")
    assert {k.removeprefix("transformer.") for k in new} - old.keys() == {"score.weight"}
    assert all(torch.equal(new[f"transformer.{k}"], v) for k, v in old.items())
    model, tokenizer = loading.load_model(tmp_path / "base")
    assert tokenizer.pad_token == tokenizer.eos_token
    assert model.config.pad_token_id == tokenizer.eos_token_id
    np.testing.assert_allclose(
        predicted(ClassifierScorer(model, tokenizer), ODD),
        plain(model.eval(), tokenizer, ODD),
        atol=1e-5,
    )


def test_training_learns_and_says_what_it_did(data, base, expert):
    card = json.loads((expert / "model.json").read_text())
    assert card["reviews"] == 160
    assert card["steps"] == 40
    assert card["loss"][-1]["loss"] < 0.5 * card["loss"][0]["loss"]
    assert card["parents"]["base"] == checkpoint_files.digest(base)
    assert checkpoint_files.label_names(expert) == ["bad", "good"]


def test_training_again_gives_the_same_bytes(data, base, expert, tmp_path):
    run_script("train_expert", *train_arguments(data, base, tmp_path))
    assert weights(tmp_path / "expert") == weights(expert)


def test_a_renamed_expert_takes_its_training_over(data, base, expert, tmp_path):
    """It takes over the same definition only; an expert with another definition is trained."""
    shutil.copytree(expert, tmp_path / "old")
    same = ["--same", tmp_path / "none", tmp_path / "old"]
    run_script("train_expert", *train_arguments(data, base, tmp_path), *same, "--log", tmp_path / "log")
    assert "copied the finished training of old" in (tmp_path / "log").read_text()
    names = {p.name for p in expert.iterdir()}
    assert all((tmp_path / "expert" / n).read_bytes() == (expert / n).read_bytes() for n in names)
    shutil.rmtree(tmp_path / "expert")
    run_script(
        "train_expert", *train_arguments(data, base, tmp_path, seed=4, steps=1), *same, "--log", tmp_path / "log2"
    )
    assert "copied the finished" not in (tmp_path / "log2").read_text()


@pytest.mark.parametrize(("kill", "processes", "steps"), [(signal.SIGKILL, 1, 150), (signal.SIGTERM, 2, 60)])
def test_a_killed_training_goes_on_and_ends_with_the_same_bytes(data, base, tmp_path, kill, processes, steps):
    whole, cut = (
        [*train_arguments(data, base, tmp_path / name, steps=steps), "--gpus", processes] for name in ("whole", "cut")
    )
    run_script("train_expert", *whole)
    command = [sys.executable, SCRIPTS / "train_expert.py", *cut]
    command += ["--checkpoint-seconds", "0.2", "--log", tmp_path / "log"]
    process = subprocess.Popen(list(map(str, command)))
    deadline = time.monotonic() + 120
    one_epoch = 10  # of 160 reviews by 16: it must resume within a later one, which has another order
    while not any(
        int(f.parent.name.split("-")[1]) % one_epoch and int(f.parent.name.split("-")[1]) > one_epoch
        for f in tmp_path.glob("cut/checkpoints/*/checkpoint-*/whole")
    ):
        assert process.poll() is None, "ended before the first checkpoint"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(kill)
    assert process.wait() != 0
    assert not (tmp_path / "cut/expert").exists()
    # A checkpoint that was being written when the job was killed.
    (checkpoint_root,) = (tmp_path / "cut/checkpoints").iterdir()
    half = checkpoint_root / f"checkpoint-{steps - 1}"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    run_script("train_expert", *cut, "--log", tmp_path / "log2")
    assert "resuming from" in (tmp_path / "log2").read_text()
    assert f"checkpoint-{steps - 1} is half-written; it is removed" in (tmp_path / "log2").read_text()
    assert weights(tmp_path / "cut/expert") == weights(tmp_path / "whole/expert")
    assert not (tmp_path / "cut/checkpoints").exists()


def test_a_training_that_reads_otherwise_does_not_go_on_from_the_same_weights(data, base, tmp_path):
    """The base's prompt, its labels and the reviews' words count, too: a training learns from more than the weights."""
    own = tmp_path / "base"
    shutil.copytree(base, own)
    arguments = [*train_arguments(data, own, tmp_path, steps=150), "--checkpoint-seconds", "0.1"]
    process = subprocess.Popen(
        list(map(str, [sys.executable, SCRIPTS / "train_expert.py", *arguments, "--log", tmp_path / "log"]))
    )
    while not list(tmp_path.glob("checkpoints/*/checkpoint-*/whole")):
        assert process.poll() is None, "ended before the first checkpoint"
        time.sleep(0.02)
    process.kill()
    process.wait()
    card = json.loads((own / "model.json").read_text())
    (own / "model.json").write_text(json.dumps({**card, "model": {**card["model"], "prompt": {"template": "another"}}}))
    run_script("train_expert", *arguments, "--log", tmp_path / "log")
    assert "resuming from" not in (tmp_path / "log").read_text()


def test_a_value_that_validation_lacks_is_no_error(data, base, tmp_path):
    """A rare value may be missing in validation, but a value that train lacks is refused."""
    own = tmp_path / "data"
    shutil.copytree(data, own)
    for split, value in (("train", "rare"), ("valid", "frequent")):
        rows = pl.read_parquet(own / f"{split}.parquet")
        kind = pl.Series(["frequent"] * (rows.height - 1) + [value])
        rows.with_columns(kind=kind).write_parquet(own / f"{split}.parquet")
    arguments = train_arguments(own, base, tmp_path, steps=2)
    at = arguments.index("--part") + 1
    arguments[at] = json.dumps({"where": {"kind": ["frequent", "rare"]}})
    run_script("train_expert", *arguments)
    arguments[at] = json.dumps({"where": {"kind": ["nowhere"]}})
    assert "no train review has 'nowhere'" in run_script("train_expert", *arguments, ok=False)


def test_another_training_does_not_go_on_from_these_checkpoints(data, base, tmp_path):
    stale = tmp_path / "checkpoints/0123456789/checkpoint-5"
    stale.mkdir(parents=True)
    (stale / "whole").touch()
    run_script("train_expert", *train_arguments(data, base, tmp_path), "--log", tmp_path / "log")
    assert "resuming from" not in (tmp_path / "log").read_text()


def test_processes_that_share_a_training_end_where_one_would(data, base, tmp_path):
    still = tmp_path / "still"  # dropout draws other numbers in each process
    shutil.copytree(base, still)
    config = json.loads((still / "config.json").read_text())
    config.update(attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0)
    (still / "config.json").write_text(json.dumps(config))
    trained = {}
    for number in (1, 2):
        folder = tmp_path / str(number)
        run_script("train_expert", *train_arguments(data, still, folder), "--gpus", number)
        assert json.loads((folder / "expert/model.json").read_text())["processes"] == number
        assert not (folder / "checkpoints").exists()
        trained[number] = load_file(folder / "expert/model.safetensors")
    start = load_file(still / "model.safetensors")
    moved = max(float((trained[1][k] - start[k]).abs().max()) for k in start)
    apart = max(float((trained[1][k] - trained[2][k]).abs().max()) for k in start)
    assert apart < moved / 100, (apart, moved)

    bad = [*train_arguments(data, still, tmp_path / "bad", weight_decay=1e38), "--gpus", 2, "--log", tmp_path / "log"]
    run_script("train_expert", *bad, ok=False)
    assert (tmp_path / "log").read_text().count("error: training diverged") == 1
    assert not (tmp_path / "bad/expert").exists()


def test_a_model_whose_layers_are_spread_predicts_the_same(expert, tmp_path):
    whole = predicted(ClassifierScorer(*loading.load_model(expert)), TEXTS)
    # Without GPUs, the disk takes their place: the same hooks of accelerate bring a layer and its input together.
    places = {"transformer.wte": "cpu", "transformer.wpe": "cpu", "transformer.drop": "cpu", "transformer.h.0": "cpu",
              "transformer.h.1": "disk", "transformer.ln_f": "cpu", "score": "disk"}  # fmt: skip
    model, tokenizer = loading.load_model(expert, device_map=places, offload_folder=tmp_path)
    assert model.hf_device_map == places
    np.testing.assert_allclose(predicted(ClassifierScorer(model, tokenizer), TEXTS), whole, atol=1e-6)


def test_diverged_training_is_one_clear_error(data, base, tmp_path):
    arguments = train_arguments(data, base, tmp_path, learning_rate=0.99, steps=30, weight_decay=1e38)
    printed = run_script("train_expert", *arguments, ok=False)
    assert "error: training diverged" in printed.splitlines()[-1]
    assert not (tmp_path / "expert").exists()


def plain(model, tokenizer, texts):
    """Predict one text at a time without padding; batches must agree with this."""
    rows = []
    with torch.inference_mode():
        for text in texts:
            ids = tokenizer(text or " ", truncation=True, return_tensors="pt")["input_ids"]
            rows.append(model(input_ids=ids).logits.log_softmax(-1)[0].numpy())
    return np.stack(rows)


ODD = ["", " ", "a", "word " * 500, "😀 naïve 薬 лекарство", "\n\n", *TEXTS[:60]]


def test_batches_change_nothing(expert, monkeypatch):
    model, tokenizer = loading.load_model(expert)
    expected = plain(model.eval(), tokenizer, ODD)
    for budget in (1, 64, 100_000):
        monkeypatch.setitem(run_model.TOKENS_PER_BATCH, "cpu", budget)
        found = predicted(ClassifierScorer(model, tokenizer), ODD)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-5)
        backwards = predicted(ClassifierScorer(model, tokenizer), ODD[::-1])[::-1]
        np.testing.assert_allclose(backwards, expected, atol=1e-5)


def predict_arguments(model, data, out):
    return [
        "--model",
        model,
        "--data",
        data,
        "--task",
        "t",
        "--output",
        out / "p.parquet",
        "--cost",
        out / "p.cost.json",
    ]


def test_predict_writes_what_the_design_names(data, expert, tmp_path):
    run_script("predict", *predict_arguments(expert, data, tmp_path))
    table = pl.read_parquet(tmp_path / "p.parquet")
    assert table.columns == ["review_id", "split", "label", "logp_0", "logp_1"]
    assert table["review_id"].to_list() == list(range(160, 240))
    assert table["split"].to_list() == ["valid"] * 40 + ["test"] * 40
    assert table["label"].to_list() == [i % 2 for i in range(160, 240)]
    accuracy = (table.select("logp_0", "logp_1").to_numpy().argmax(1) == table["label"].to_numpy()).mean()
    assert accuracy > 0.9
    cost = json.loads((tmp_path / "p.cost.json").read_text())
    assert cost["n_parameters"] == loading.load_model(expert)[0].num_parameters()
    assert cost["weights_bytes"] == (expert / "model.safetensors").stat().st_size
    assert cost["reviews"] == 80
    assert cost["reviews_per_second"] > 0
    assert cost["peak_memory_bytes"] > 1e8
    scorer = ClassifierScorer(*loading.load_model(expert))
    read = tokens.encode(scorer, TEXTS[160:])
    assert cost["flops_per_review"] == speed.flops_per_review(scorer, read)
    assert cost["mean_tokens"] == pytest.approx(len(read.flat) / 80, abs=0.01)


def test_what_candidates_share_is_measured_once(tmp_path):
    assert files.once(tmp_path / "x", "peak", ["cpu", 1], lambda: 3.5) == 3.5
    assert files.once(tmp_path / "x", "peak", ["cpu", 1], lambda: 4.5) == 3.5
    assert files.once(tmp_path / "x", "peak", ["cpu", 2], lambda: 4.5) == 4.5
    assert files.once(None, "peak", ["cpu", 1], lambda: 5.5) == 5.5


@pytest.mark.parametrize("script", ["predict", "train_expert"])
def test_permuted_labels_and_half_written_models_are_refused(data, expert, tmp_path, script):
    import shutil

    def arguments(model):
        return (
            predict_arguments(model, data, tmp_path) if script == "predict" else train_arguments(data, model, tmp_path)
        )

    shutil.copytree(expert, tmp_path / "permuted")
    config = json.loads((expert / "config.json").read_text())
    config["id2label"] = {"0": "good", "1": "bad"}
    (tmp_path / "permuted/config.json").write_text(json.dumps(config))
    printed = run_script(script, *arguments(tmp_path / "permuted"), ok=False)
    assert "same labels in another order (found good, bad; expected bad, good)" in printed
    shutil.copytree(expert, tmp_path / "half")
    os.truncate(tmp_path / "half/model.safetensors", 5000)
    printed = run_script(script, *arguments(tmp_path / "half"), ok=False)
    assert "half/model.safetensors: " in printed
    assert not (tmp_path / "p.parquet").exists()
    assert not (tmp_path / "expert").exists()


def test_blends_and_baselines(data, expert, base, tmp_path):
    for name, model in (("a", expert), ("b", base)):
        (tmp_path / name).mkdir()
        run_script("predict", *predict_arguments(model, data, tmp_path / name))
        (tmp_path / name / "p.parquet").rename(tmp_path / f"{name}.parquet")
    members = [tmp_path / f"{n}.parquet" for n in "ab"]
    costs = [tmp_path / n / "p.cost.json" for n in "ab"]
    out = ["--output", tmp_path / "vote.parquet", "--cost", tmp_path / "vote.json"]
    facts = ["--data", data, "--task", "t", "--seed", 1, "--predictions", *members, "--costs", *costs]
    run_script("blend", "--method", "soft_vote", *facts, *out)
    logp = ["logp_0", "logp_1"]
    mean = np.mean([np.exp(pl.read_parquet(m).select(logp).to_numpy()) for m in members], axis=0)
    vote = pl.read_parquet(tmp_path / "vote.parquet")
    np.testing.assert_allclose(np.exp(vote.select(logp).to_numpy()), mean, atol=1e-6)
    both = [json.loads(c.read_text()) for c in costs]
    cost = json.loads((tmp_path / "vote.json").read_text())
    for name in ("n_parameters", "flops_per_review", "predict_seconds"):
        assert cost[name] == pytest.approx(sum(c[name] for c in both))
    pl.read_parquet(members[1])[::-1].write_parquet(members[1])  # the order of rows says nothing
    run_script("blend", "--method", "soft_vote", *facts, *out)
    assert pl.read_parquet(tmp_path / "vote.parquet").equals(vote)
    run_script("blend", "--method", "weighted_vote", *facts, *out)
    weights = json.loads((tmp_path / "vote.json").read_text())["blend"]["weights"]
    assert set(weights) == {"a", "b"} and weights["a"] > 0.9  # the base knows nothing
    pl.read_parquet(members[1])[1:].write_parquet(members[1])
    printed = run_script("blend", "--method", "soft_vote", *facts, *out, ok=False)
    assert f"error: {members[1]}: test: 39 predictions for 40 reviews, the first missing is 239" in printed
    for kind, accuracy in (("tfidf", 1.0), ("majority", 0.5)):
        out = ["--output", tmp_path / f"{kind}.parquet", "--cost", tmp_path / f"{kind}.json"]
        run_script("fit_baseline", "--kind", kind, "--data", data, "--task", "t", "--seed", 1, *out)
        tuned = json.loads((tmp_path / f"{kind}.json").read_text()).get("cross_validation")
        assert (tuned is None) == (kind == "majority")
        if tuned:
            chosen = f"C {tuned['C']:g}, classes {tuned['class_weight'] or 'as they are'}"
            assert len(tuned["scores"]) == 6 and tuned["scores"][chosen] == max(tuned["scores"].values())
            assert tuned["scoring"] == "f1_macro"
        table = pl.read_parquet(tmp_path / f"{kind}.parquet")
        assert (table.select(logp).to_numpy().argmax(1) == table["label"].to_numpy()).mean() == accuracy


def test_a_linear_probe_is_logistic_regression_on_frozen_features(data, base, tmp_path):
    """Compare with scikit-learn on features that are computed text by text."""
    out = ["--output", tmp_path / "probe.parquet", "--cost", tmp_path / "probe.json"]
    run_script("fit_probe", "--model", base, "--data", data, "--task", "t", "--seed", 1, *out)
    cost, table = json.loads((tmp_path / "probe.json").read_text()), pl.read_parquet(tmp_path / "probe.parquet")
    model, tokenizer = loading.load_model(base, "classifier")
    model.eval()

    def features(rows):
        with torch.inference_mode():
            states = [
                model.base_model(**tokenizer(t or " ", truncation=True, return_tensors="pt")) for t in rows["review"]
            ]
        return np.stack([s.last_hidden_state[0].mean(0).numpy() for s in states])

    train, rest = (labelled.labelled(data, splits, "t") for splits in (("train",), ("valid", "test")))
    tuned = cost["cross_validation"]
    classifier = LogisticRegression(C=tuned["C"], class_weight=tuned["class_weight"], max_iter=2000)
    fitted = make_pipeline(StandardScaler(), classifier).fit(features(train), train["label"].to_numpy())
    logp = table.select("logp_0", "logp_1").to_numpy()
    np.testing.assert_allclose(logp, fitted.predict_log_proba(features(rest)), atol=2e-2)
    assert table["review_id"].to_list() == rest["review_id"].to_list()
    assert cost["flops_per_review"] > 0 and cost["n_parameters"] == model.num_parameters()


def test_byte_level_tokens_have_no_unknown():
    tokenizer = scratch.train_tokenizer(TEXTS, 300, 24)
    for text in ODD[:6]:
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def small_card(model, rows: int) -> list[int]:
    """Let a model run out of memory above a number of rows, like a card that is too small."""
    forward, seen = model.forward, []

    def limited(input_ids=None, **others):
        if input_ids.shape[0] > rows:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        seen.append(input_ids.shape[0])
        return forward(input_ids=input_ids, **others)

    model.forward = limited
    return seen


def test_training_on_a_small_card_is_the_same_training_in_smaller_parts(base, data, tmp_path):
    trained = []
    for name, limit in (("large", 16), ("small", 5)):
        model, tokenizer = loading.load_model(base)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        seen = small_card(model, limit)
        _, facts = fine_tune(model, tokenizer, data, HYPER, tmp_path / name)
        assert facts["batch_parts"] == {"large": 1, "small": 4}[name]
        assert max(seen) == {"large": 16, "small": 4}[name]
        trained.append({k: v.clone() for k, v in model.state_dict().items()})
    start = loading.load_model(base)[0].state_dict()
    moved = max(float((trained[0][k] - start[k]).abs().max()) for k in start)
    apart = max(float((trained[0][k] - trained[1][k]).abs().max()) for k in start)
    assert apart < moved / 50, (apart, moved)


def test_a_card_too_small_for_one_review_is_an_error(base, data, tmp_path):
    model, tokenizer = loading.load_model(base)
    small_card(model, 0)
    with pytest.raises(torch.OutOfMemoryError):
        fine_tune(model, tokenizer, data, HYPER, tmp_path)


def test_predicting_on_a_small_card_halves_the_batches(expert):
    model, tokenizer = loading.load_model(expert)
    whole = predicted(ClassifierScorer(model, tokenizer), TEXTS)
    seen = small_card(model, 7)
    halved = predicted(ClassifierScorer(model, tokenizer), TEXTS)
    assert max(seen) <= 7
    np.testing.assert_allclose(halved, whole, atol=1e-5)


def matrices(model, prefix: str) -> int:
    """Count the parameters that multiply every token, each once: the weights of linear maps."""
    return sum(p.numel() for n, p in model.named_parameters() if n.startswith(prefix) and p.dim() == 2)


def flops_of(model, texts) -> tuple[int, int]:
    """Count the operations and the tokens of a pass."""
    tokenizer = scratch.train_tokenizer(TEXTS, 300, 16)
    mean = float(np.mean([min(16, max(1, len(tokenizer.tokenize(t or " ")))) for t in texts]))
    return flops_per_review(model, tokenizer, texts), round(mean)


def flops_per_review(model, tokenizer, texts) -> int:
    scorer = ClassifierScorer(model, tokenizer)
    return speed.flops_per_review(scorer, tokens.encode(scorer, texts))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_operations_of_one_review_are_those_of_the_formula(attention):
    """They are 2 N T for the matrices and 4 L T² d for attention (Kaplan et al. 2020, arXiv 2001.08361; no causal half)."""
    gpt2, bert = tiny_gpt2(), tiny_bert()
    for model in (gpt2, bert):
        model.set_attn_implementation(attention)
    for texts in (TEXTS[:60], ["", "a"]):
        flops, t = flops_of(gpt2, texts)
        assert flops == 2 * t * (matrices(gpt2, "transformer.h.") + matrices(gpt2, "score")) + 4 * 2 * t**2 * 32
        flops, t = flops_of(bert, texts)  # its pooler and head see the first token alone
        once = matrices(bert, "bert.pooler") + matrices(bert, "classifier")
        assert flops == 2 * (t * matrices(bert, "bert.encoder") + once) + 4 * 2 * t**2 * 32


def test_operations_of_a_mixture_are_those_of_the_experts_a_token_is_sent_to():
    def mixture(experts: int, at_once: int):
        config = MixtralConfig(
            vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=32, num_local_experts=experts, num_experts_per_tok=at_once,
            pad_token_id=1, bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
        return MixtralForSequenceClassification(config)

    model = mixture(4, 2)
    how = model.get_experts_implementation()
    flops, t = flops_of(model, TEXTS[:60])
    assert model.get_experts_implementation() == how
    router, expert = 2 * t * 2 * 32, 2 * t * 2 * 3 * 32 * 48
    assert flops_of(mixture(5, 2), TEXTS[:60])[0] - flops == router
    assert flops_of(mixture(4, 3), TEXTS[:60])[0] - flops == expert
    assert flops > 2 * expert


def test_counting_operations_changes_no_prediction(expert, tmp_path):
    model, tokenizer = loading.load_model(expert)
    before = predicted(ClassifierScorer(model, tokenizer), TEXTS[:9])
    counted = flops_per_review(model, tokenizer, TEXTS[:9])
    assert np.array_equal(predicted(ClassifierScorer(model, tokenizer), TEXTS[:9]), before)
    places = {"transformer": "cpu", "score": "disk"}
    spread, _ = loading.load_model(expert, device_map=places, offload_folder=tmp_path)
    assert flops_per_review(spread, tokenizer, TEXTS[:9]) == counted
