"""Experiment files, tables of predictions and scripts as people write them: taken by meaning, refused in the right words."""

import numpy as np
import polars as pl
import pytest
import yaml

import fit_baseline
from mllm.experiment import foreign_tables, load, names, yaml_files
from mllm.experiment.schema import Candidates
from mllm.experiment.yaml_files import ExperimentError

X = """
name: x
data: {source: local, train: r.csv, columns: {review: review, rating: rating, kind: kind}}
split: {mode: random}
tasks: [{name: t, column: kind, classes: {a: [1], b: [2]}}]
models: [{name: m, source: local, path: M}]
base: m
experts: [{name: shard, parts: 2}]
merges: [{method: linear, members: ["shard-*"]}]
"""


def parsed(old: str = "", new: str = "", text: str = X):
    assert old in text
    return load.parse(yaml.load(text.replace(old, new), yaml_files._Loader))  # a SafeLoader


@pytest.mark.parametrize("pattern", ["shard-*", "shard-?", "shard-[01]", "s*d-?"])
def test_one_matcher_for_checks_and_for_the_grid(pattern):
    assert names.match([pattern], ["shard-0", "shard-1", "other"]) == ["shard-0", "shard-1"]
    parsed("shard-*", pattern)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "{a: [1], b: [2]}",
            "{1: [1], b: [2]}",
            "classes.1: the name 1 is no text for YAML. Fix: write it in quotes, '1'",
        ),
        (
            "{a: [1], b: [2]}",
            "{yes: [1], b: [2]}",
            "the name yes is true or false for YAML. Fix: write it in quotes, 'yes'",
        ),
        ("{a: [1], b: [2]}", "{a: [1], no: [2]}", "the name no is true or false for YAML"),
        ("{a: [1], b: [2]}", "{a: [1], 2.5: [2]}", "the name 2.5 is no text for YAML"),
        ("kind: kind}", "Kind: kind}", "expected small letters, digits and '_', starting with a letter"),
    ],
)
def test_yaml_s_types_as_names(old, new, message):
    with pytest.raises(ExperimentError) as refused:
        parsed(old, new)
    assert message in str(refused.value)


def test_merge_keys_of_yaml(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("d: &d {a: 1, b: 2}\ne: {<<: *d, b: 3}\n")
    assert yaml_files.read_yaml(file)["e"] == {"a": 1, "b": 3}
    file.write_text("d: &d {a: 1}\ne: {<<: *d, b: 3, b: 4}\n")
    with pytest.raises(ExperimentError, match="key 'b' is written twice"):
        yaml_files.read_yaml(file)


def test_overrides_are_read_as_the_file_is():
    given = {
        "seed": 3,
        "name": "8000",
        "data": {"rows": "8000", "source": "synthetic"},
        "models": [{"max_length": "48"}],
    }
    assert yaml_files.typed(given) == {
        "seed": 3, "name": "8000", "data": {"rows": 8000, "source": "synthetic"}, "models": [{"max_length": 48}],
    }  # fmt: skip
    assert yaml_files.typed({"a": {"rate": "6e-5", "on": "true", "list": ["1", "x"], "bad": "{"}}) == {
        "a": {"rate": 6e-5, "on": True, "list": [1, "x"], "bad": "{"}
    }


def candidates(folder):
    return Candidates.model_validate({"from": str(folder), "kinds": {"expert": ["*"]}})


@pytest.mark.parametrize("name", ["e;touch x.parquet", "a b.csv", "{x}.csv", "$(id).parquet", ".hidden.csv"])
def test_a_table_s_name_reaches_no_shell(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(ExperimentError, match="rename the file"):
        foreign_tables.tables(candidates(tmp_path))


def test_endings_in_capitals_are_endings_and_other_tables_are_not_passed_over(tmp_path):
    for name in ("a.CSV", "b.Parquet", "c.csv", "README.md"):
        (tmp_path / name).touch()
    assert list(foreign_tables.tables(candidates(tmp_path))) == ["a", "b", "c"]
    for name in ("d.tsv", "d.csv.gz", "d.xlsx"):
        (tmp_path / name).touch()
        with pytest.raises(ExperimentError, match=f"{name} in .*expected tables that end in"):
            foreign_tables.tables(candidates(tmp_path))
        (tmp_path / name).unlink()


@pytest.mark.parametrize(
    ("good", "bad"),
    [("这个药很有效果疼痛消失", "吃了以后非常难受没有用"), ("この薬はよく効いた痛みが消えた", "まったく効かず気分が悪い"),
     ("दवा से बहुत आराम मिला", "दवा से कोई फायदा नहीं हुआ"), ("it helped me a lot", "no effect at all")],
)  # fmt: skip
def test_tfidf_reads_the_script(good, bad):
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    rng = np.random.default_rng(0)
    texts, labels = [], []
    for i in range(120):
        label = i % 2
        words = (bad if label else good).split(" ")
        unit = words if len(words) > 1 else list(words[0])
        rest = (good if label else bad).split(" ")
        other = rest if len(rest) > 1 else list(rest[0])
        keep = [unit[j : j + 3] for j in rng.integers(0, len(unit) - 2, 3)] + [other[:1]]
        texts.append((" " if len(words) > 1 else "").join(x for part in keep for x in part))
        labels.append(label)
    model = make_pipeline(TfidfVectorizer(min_df=2, **fit_baseline.units(pl.Series(texts))), LogisticRegression())
    model.fit(texts[:80], labels[:80])
    assert model.score(texts[80:], labels[80:]) > 0.9


def test_words_are_counted_where_there_are_words():
    words = {"ngram_range": (1, 2), "strip_accents": "unicode"}
    assert fit_baseline.units(pl.Series(["it helped", "ça va très bien", "Боль прошла", "통증이 사라졌다"])) == words
    assert fit_baseline.units(pl.Series(["好", "it 不好 很难受"]))["analyzer"] == "char"
    assert fit_baseline.units(pl.Series(["ठीक है"]))["analyzer"] == "char_wb"
