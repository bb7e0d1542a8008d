"""Compare measures of members' weights with plain numpy on full state dicts, and with known answers at the extremes."""

import argparse
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

import diagnose_members
from conftest import run_script
from mllm.core.errors import Failure
from mllm.merging import diagnosis
from mllm.merging.methods import ties
from tiny_models import FAMILIES, MEMBERS, make_models, tiny_bert, tiny_gpt2

LAYERS = {
    "gpt2 classifier": ["score", "transformer.h.0", "transformer.h.1", "transformer.ln_f", "transformer.wpe",
                        "transformer.wte"],
    "bert classifier": ["bert.embeddings.LayerNorm", "bert.embeddings.position_embeddings",
                        "bert.embeddings.token_type_embeddings", "bert.embeddings.word_embeddings",
                        "bert.encoder.layer.0", "bert.encoder.layer.1", "bert.pooler.dense", "classifier"],
    "llama": ["lm_head", "model.embed_tokens", "model.layers.0", "model.layers.1", "model.layers.2", "model.norm"],
    "flan-t5 untied": ["decoder.block.0", "decoder.block.1", "decoder.final_layer_norm", "encoder.block.0",
                       "encoder.block.1", "encoder.final_layer_norm", "lm_head", "shared"],
}  # fmt: skip


def diagnose(models: Path, tasks: dict, out: Path) -> pl.DataFrame:
    diagnose_members.main(argparse.Namespace(models=models, tasks=tasks, output=out))
    return pl.read_csv(out, schema_overrides={"first": pl.String, "second": pl.String})


def measures(base: torch.Tensor, *members: torch.Tensor) -> dict:
    """Return (measure, density, first, second) -> value, for one tensor of members named a, b, …."""
    names = [chr(ord("a") + i) for i in range(len(members))]
    return {row[:4]: row[4] for row in diagnosis.rows(diagnosis.sums(base, members), names)}


def whole(folder: Path, layer: str = "") -> np.ndarray:
    state = load_file(folder / "model.safetensors")
    parts = [state[n].double().numpy().ravel() for n in sorted(state) if n.startswith(layer)]
    return np.concatenate(parts)


@pytest.mark.parametrize("family", LAYERS)
def test_norms_and_angles_are_those_of_the_whole_state(tmp_path, family):
    models = make_models(FAMILIES[family], tmp_path)
    found = diagnosis.by_layer({n: models / n for n in ("base", *MEMBERS)}, "base")
    assert list(found) == ["all", *LAYERS[family]]
    first = next(layer for layer in found if layer.endswith(".0"))
    for layer, prefix in (("all", ""), (first, f"{first}.")):
        base = whole(models / "base", prefix)
        vectors = {m: whole(models / m, prefix) - base for m in MEMBERS}
        table = {row[:4]: row[4] for row in diagnosis.rows(found[layer], MEMBERS)}
        for m in MEMBERS:
            norm = np.linalg.norm(vectors[m])
            assert table["norm", None, m, None] == pytest.approx(norm, rel=1e-5)
            assert table["relative_norm", None, m, None] == pytest.approx(norm / np.linalg.norm(base), rel=1e-5)
        for m, n in itertools.combinations(MEMBERS, 2):
            cosine = vectors[m] @ vectors[n] / np.linalg.norm(vectors[m]) / np.linalg.norm(vectors[n])
            assert table["cosine", None, m, n] == pytest.approx(cosine, abs=1e-6)
        assert found[layer].kept.sum(axis=1).tolist() == [base.size] * 2
    parts = [sums for layer, sums in found.items() if layer != "all"]
    for what in ("base", "products", "kept", "conflicts"):
        np.testing.assert_allclose(sum(getattr(p, what) for p in parts), getattr(found["all"], what), rtol=1e-12)


def test_the_file(tmp_path):
    """One table has all tasks, in the order of their experts, and every value is in its range."""
    models = make_models(tiny_gpt2, tmp_path)
    tasks = {"rating": {"base": "base", "members": ["c", "a", "b"]}, "again": {"base": "base", "members": ["a", "b"]}}
    table = diagnose(models, tasks, tmp_path / "out/members.csv")
    assert table.columns == list(diagnosis.COLUMNS)
    assert table["task"].unique(maintain_order=True).to_list() == ["rating", "again"]
    assert table["measure"].unique(maintain_order=True).to_list() == list(diagnosis.MEASURES)
    rating = table.filter(pl.col("task") == "rating")
    assert rating["layer"].unique(maintain_order=True).to_list() == ["all", *LAYERS["gpt2 classifier"]]
    head = rating.filter((pl.col("layer") == "all") & pl.col("density").is_null())
    assert head["first"].to_list() == ["c", "a", "b", "c", "a", "b", "c", "c", "a"]
    assert head["second"].to_list() == [None] * 6 + ["a", "b", "b"]
    for m, low, high in (("norm", 0, 99), ("cosine", -1, 1), ("sign_conflict", 0, 1), ("kept_by", 0, 1)):
        assert table.filter(pl.col("measure") == m)["value"].is_between(low, high).all()
    kept = rating.filter((pl.col("layer") == "all") & (pl.col("measure") == "kept_by") & (pl.col("density") == 0.2))
    assert kept["first"].to_list() == ["1", "2", "3"]
    assert (kept["value"] * pl.Series([1, 2, 3])).sum() == pytest.approx(0.2 * 3, abs=0.01)
    before = (tmp_path / "out/members.csv").read_bytes()
    arguments = ["--models", models, "--tasks", json.dumps(tasks), "--output", tmp_path / "out/members.csv"]
    run_script("diagnose_members", *arguments)
    assert (tmp_path / "out/members.csv").read_bytes() == before


def test_no_task_with_two_experts_is_a_header(tmp_path):
    table = diagnose(tmp_path, {}, tmp_path / "members.csv")
    assert (tmp_path / "members.csv").read_text() == ",".join(diagnosis.COLUMNS) + "\n"
    assert table.height == 0


@pytest.mark.parametrize("density", diagnosis.DENSITIES)
@pytest.mark.parametrize("rounded", [False, True])
def test_signs_one_entry_at_a_time(density, rounded, monkeypatch):
    """Cover many equal magnitudes, and chunks in double precision that end inside a tensor."""
    monkeypatch.setattr(diagnosis, "CHUNK", 7)
    torch.manual_seed(1)
    base, members = torch.zeros(6, 8), [torch.randn(6, 8) for _ in range(4)]
    if rounded:
        members = [m.round() for m in members]
    trimmed = []
    for member in members:
        entries = member.flatten().tolist()
        order = sorted(range(len(entries)), key=lambda i: (-abs(entries[i]), i))[: int(density * len(entries))]
        trimmed.append([entries[i] if i in order else 0.0 for i in range(len(entries))])
    several = conflicts = 0
    kept = [0] * 5
    for entry in zip(*trimmed, strict=True):
        signs = [v > 0 for v in entry if v]
        kept[len(signs)] += 1
        several += len(signs) > 1
        conflicts += len(set(signs)) > 1
    assert conflicts
    table = measures(base, *members)
    assert table["sign_conflict", density, None, None] == pytest.approx(conflicts / several)
    for number in range(1, 5):
        assert table["kept_by", density, str(number), None] == pytest.approx(kept[number] / 48)


def test_entries_are_kept_as_mergekit_keeps_them():
    torch.manual_seed(2)
    delta = torch.randn(50, 30)
    for density in (0.2, 0.5, 0.0001):
        mergekit = ties.largest(delta, {"density": density}).sign().to(torch.int8)
        assert torch.equal(diagnosis.kept_signs(delta, density), mergekit.flatten())
        rounded = (4 * delta).round() / 4
        mergekit = ties.largest(rounded, {"density": density})
        ours = diagnosis.kept_signs(rounded, density)
        assert int(ours.count_nonzero()) == int(mergekit.count_nonzero())
        sizes = [rounded.flatten()[mask.flatten() != 0].abs().sort().values for mask in (mergekit, ours)]
        assert torch.equal(*sizes)


def test_known_ends():
    torch.manual_seed(3)
    base, delta, other = (torch.randn(20, 5) for _ in range(3))
    for member, cosine, conflict in ((base + delta, 1, 0), (base - delta, -1, 1)):
        table = measures(base, base + delta, member)
        assert table["cosine", None, "a", "b"] == pytest.approx(cosine, abs=1e-6)
        assert -1 <= table["cosine", None, "a", "b"] <= 1
        for density in (0.2, 1.0):
            assert table["sign_conflict", density, None, None] == conflict
            assert table["kept_by", density, "1", None] == 0
            assert table["kept_by", density, "2", None] == density
    table = measures(base, base + delta, base, base + other)
    assert table["norm", None, "b", None] == table["relative_norm", None, "b", None] == 0
    assert table["cosine", None, "a", "b"] is table["cosine", None, "b", "c"] is None
    assert table["cosine", None, "a", "c"] is not None
    assert table["kept_by", 1.0, "2", None] == 1
    table = measures(torch.zeros(4), torch.zeros(4), torch.zeros(4))
    assert table["relative_norm", None, "a", None] is table["sign_conflict", 1.0, None, None] is None
    assert table["kept_by", 0.2, "1", None] == 0


def test_half_precision_is_compared_in_float32():
    base = torch.ones(64, dtype=torch.bfloat16)
    member = base + torch.arange(64, dtype=torch.bfloat16) / 64
    table = measures(base, member, member.float())
    assert table["norm", None, "a", None] == pytest.approx(float((member.double() - 1).norm()), rel=1e-12)
    assert table["cosine", None, "a", "b"] == pytest.approx(1)


def test_a_member_equal_to_the_base_leaves_its_angles_empty(tmp_path):
    models = make_models(tiny_gpt2, tmp_path)
    shutil.rmtree(models / "b")
    shutil.copytree(models / "base", models / "b")
    table = diagnose(models, {"t": {"base": "base", "members": MEMBERS}}, tmp_path / "members.csv")
    undefined = table.filter(pl.col("value").is_null()).select("measure", "first", "second").unique().sort("first")
    assert undefined.rows() == [("cosine", "a", "b"), ("cosine", "b", "c")]
    assert ",cosine,,a,b,\n" in (tmp_path / "members.csv").read_text()


def test_counts_are_no_weights_and_what_cannot_be_merged_is_refused(tmp_path):
    models = make_models(tiny_bert, tmp_path)
    folders = {n: models / n for n in ("base", "a", "b")}
    plain = diagnosis.by_layer(folders, "base")
    for name in folders:
        state = load_file(models / name / "model.safetensors")
        state["bert.embeddings.position_ids"] = torch.arange(16)
        save_file(state, models / name / "model.safetensors", metadata={"format": "pt"})
    again = diagnosis.by_layer(folders, "base")
    assert list(again) == list(plain)
    assert again["all"].kept.tolist() == plain["all"].kept.tolist()
    make_models(tiny_gpt2, tmp_path / "others")
    with pytest.raises(Failure, match="architectures is"):
        diagnosis.by_layer({**folders, "b": tmp_path / "others/b"}, "base")
