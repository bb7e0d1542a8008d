"""Test experiment files, prediction tables and scripts as people write them: read by meaning, refused with clear words."""

from decimal import Decimal

import numpy as np
import polars as pl
import pytest
import yaml

import fit_baseline
from mllm.core.errors import Failure
from mllm.data import splitting
from mllm.experiment import foreign_tables, load, names, yaml_files
from mllm.experiment.schema import Candidates, Task
from mllm.experiment.yaml_files import ExperimentError
from mllm.prediction import foreign_predictions

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
            "classes.1: YAML reads the name 1 as a number or date. Fix: write it in quotes, '1'",
        ),
        (
            "{a: [1], b: [2]}",
            "{yes: [1], b: [2]}",
            "YAML reads the name yes as true or false. Fix: write it in quotes, 'yes'",
        ),
        ("{a: [1], b: [2]}", "{a: [1], no: [2]}", "YAML reads the name no as true or false"),
        ("{a: [1], b: [2]}", "{a: [1], 2.5: [2]}", "YAML reads the name 2.5 as a number or date"),
        ("kind: kind}", "Kind: kind}", "expected MLLM's name: small letters, digits and '_', first a letter"),
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
    with pytest.raises(ExperimentError, match="duplicate key 'b'"):
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


BACKWARDS = {
    "names of the file first": (
        "Review Text,Product Name,Label",
        {"Review Text": "review", "Product Name": "kind", "Label": "mood"},
        "{review: Review Text, kind: Product Name, mood: Label}",
    ),
    "one entry of two": (
        "text;Sort", {"text": "review", "kind": "Sort", "x": "mood"}, "{review: text, kind: Sort, x: mood}",
    ),
    "two columns of text": (
        "title\ttext\tkind", {"title": "review", "text": "review", "kind": "kind"}, "{review: [title, text], kind: kind}",
    ),
    "our names first": ("Review Text,rating", {"review": "Review Text", "stars": "rating"}, None),
    "a file with both": ("stars,rating,review", {"review": "review", "stars": "rating"}, None),
    "no such column": ("a,b", {"text": "review"}, None),
}  # fmt: skip


@pytest.mark.parametrize("what", BACKWARDS)
def test_columns_in_the_wrong_direction_are_corrected(tmp_path, what):
    header, columns, fix = BACKWARDS[what]
    file = tmp_path / "r.csv"
    file.write_text(f"\ufeff{header}\na,b,c\n", encoding="utf-8")
    raw = {"data": {"source": "local", "train": str(file), "columns": columns}}
    with pytest.raises(ExperimentError) as caught:
        load.parse(raw)
    said = [problem for problem in caught.value.problems if problem.startswith("data.columns")]
    if fix is None:
        assert not any("direction" in problem for problem in said)
    else:
        (problem,) = said  # consequences of the direction are no further errors
        assert problem.endswith(f"Fix: columns: {fix}") and yaml.safe_load(fix)
        assert f"found {next(iter(columns))}: review" in problem and str(file) in problem


@pytest.mark.parametrize("name", ["e;touch x.parquet", "a b.csv", "{x}.csv", "$(id).parquet", ".hidden.csv"])
def test_a_table_s_name_reaches_no_shell(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(ExperimentError, match="Fix: rename the file"):
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


# ── Tables of predictions ──

TASK = Task.model_validate({"name": "t", "column": "label", "classes": {"a": [0], "b": [1], "c": [2]}})
LOGITS = np.array([[2.0, -1.0, 0.3], [0.1, 0.2, 3.0], [-4.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
P = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)


def read_table(folder, numbers, values="log_probabilities", **columns):
    table = pl.DataFrame(
        {"review_id": [5, 6, 7, 8], "label": [0, 1, 2, 0], **{f"logp_{k}": numbers[:, k] for k in range(3)}, **columns}
    )
    table.write_parquet(folder / "x.parquet")
    how = Candidates.model_validate({"from": str(folder), "values": values, "kinds": {"expert": ["*"]}})
    return foreign_predictions.read(folder / "x.parquet", TASK, ["a", "b", "c"], how)


@pytest.mark.parametrize(
    ("values", "numbers"),
    [("logits", LOGITS), ("logits", 100 * LOGITS + 1e4), ("probabilities", P), ("log_probabilities", np.log(P))],
)
def test_numbers_of_any_kind_become_log_probabilities(tmp_path, values, numbers):
    found = read_table(tmp_path, numbers, values).select("^logp_.$").to_numpy()
    np.testing.assert_allclose(np.exp(found).sum(1), 1, atol=1e-6)
    if numbers.max() < 100:
        np.testing.assert_allclose(found, np.log(P), atol=1e-6)


@pytest.mark.parametrize(
    ("values", "numbers", "hint"),
    [
        ("log_probabilities", LOGITS, "set values: logits, if they are logits"),
        ("probabilities", LOGITS, "set values: logits, if they are logits"),
        ("log_probabilities", P, "set values: probabilities, since they look like probabilities"),
        ("probabilities", np.log(P), "set values: log_probabilities, since they look like log-probabilities"),
        ("probabilities", P.round(2) + [[0.01, 0, 0]] * 4, "write more digits, since they look like rounded probabilities"),
        ("log_probabilities", P.round(2) + [[0.01, 0, 0]] * 4, "write more digits, since they look like rounded probabilities"),
    ],
)  # fmt: skip
def test_numbers_that_are_something_else_get_a_hint(tmp_path, values, numbers, hint):
    with pytest.raises(Failure) as refused:
        read_table(tmp_path, numbers, values)
    assert hint in str(refused.value)


def test_columns_of_any_type_leave_slices_whole(tmp_path):
    from mllm.evaluation import slices

    columns = {
        "price": pl.Series([Decimal("1.50"), Decimal("2.25"), Decimal("1.50"), None]),
        "bytes": pl.Series([b"a", b"\xff", b"", None]),
        "words": pl.Series([["a"], ["b"], [], None]),
        "struct": pl.Series([{"a": 1}, {"a": 2}, {"a": 1}, None]),
        "when": pl.Series([None, None, None, None], dtype=pl.Datetime),
        "yes": pl.Series([True, False, True, None]),
        "small": pl.Series([1, 2, 3, 4], dtype=pl.UInt8),
        "half": pl.Series([0.5, 1, 2, 3], dtype=pl.Float32),
    }
    found = read_table(tmp_path, np.log(P), **columns)
    assert {"price", "when", "yes", "small", "half"} <= set(found.columns)
    assert not {"bytes", "words", "struct"} & set(found.columns)
    assert found["price"].dtype == pl.Float64 and found["small"].dtype == pl.Int64
    many = pl.concat([found.with_columns(group=pl.lit(i)) for i in range(60)])
    names = {column for column, _ in slices.slices(many, "label")}
    assert {"price", "yes", "small", "half"} <= names


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [(pl.Int32, pl.Int64, True), (pl.UInt8, pl.Int64, True), (pl.UInt32, pl.Int16, True), (pl.String, pl.String, True),
     (pl.Int64, pl.String, False)],
)  # fmt: skip
def test_a_number_is_the_same_number_in_any_width(tmp_path, first, second, same):
    ids = pl.Series([5, 6, 7, 8], dtype=pl.Int64)
    one, other = (read_table(tmp_path, np.log(P), review_id=ids.cast(kind)) for kind in (first, second))
    compare = (other, tmp_path / "b", one, tmp_path / "a")
    if same:
        foreign_predictions.check_alike(*compare)
    else:
        with pytest.raises(Failure, match="its reviews are identified by String"):
            foreign_predictions.check_alike(*compare)


# ── Rare values of an experiment ──


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: x\n", f"name: {'x' * 101}\n", "name: found 101 characters, expected at most 100, since it becomes part of a file name"),
        ("name: shard,", f"name: {'s' * 240},", r"experts\[0\].name: found 240 characters"),
        ("name: t,", f"name: {'t' * 300},", r"tasks\[0\].name: found 300 characters"),
        ("path: M", "path: 'M {x}'", r"models\[0\].path: found 'M \{x\}', expected a path without braces"),
        ("train: r.csv", "train: '{r}.csv'", r"data.train: found '\{r\}.csv', expected a path without braces"),
        ("train: r.csv", "train: r.csv, test: 'r}.csv'", r"data.test: found 'r\}.csv'.* Fix: rename it, or link to it"),
        ("name: x\n", "name: downloads\n", "name: found 'downloads', but results/downloads holds the files that all experiments share"),
    ],
)  # fmt: skip
def test_names_that_no_file_can_have(old, new, message):
    with pytest.raises(ExperimentError, match=message):
        parsed(old, new)


def test_a_table_s_name_has_room_for_its_ending(tmp_path):
    (tmp_path / f"{'a' * 240}.csv").touch()
    with pytest.raises(ExperimentError, match=r"found 240 characters, expected at most 100\)\. Fix: rename the file"):
        foreign_tables.tables(candidates(tmp_path))


@pytest.mark.parametrize(
    ("architecture", "width", "heads", "message"),
    [("gpt2", 33, 2, "found 33, expected a multiple of 2 (2 heads of gpt2), such as 32 or 34"),
     ("bert", 64, 3, "expected a multiple of 3 (3 heads of bert), such as 63 or 66"), ("t5", 3, 4, "such as 4 or 8"),
     ("llama", 66, 2, "expected a multiple of 4 (2 heads of llama), such as 64 or 68"), ("llama", 64, 2, None)],
)  # fmt: skip
def test_heads_share_the_width(architecture, width, heads, message):
    scratch = f"{{name: m, source: scratch, architecture: {architecture}, width: {width}, heads: {heads}}}"
    if message is None:
        parsed("{name: m, source: local, path: M}", scratch)
        return
    with pytest.raises(ExperimentError) as refused:
        parsed("{name: m, source: local, path: M}", scratch)
    assert message in str(refused.value)


def test_more_parts_than_texts_are_refused():
    train = pl.DataFrame({"group": [1, 2, 3, 3]})
    assert splitting.select_part(train, {"shard": 2, "of": 3, "seed": 1}).height > 0
    with pytest.raises(Failure, match="parts: found 4, expected at most 3, the number of distinct texts in train"):
        splitting.select_part(train, {"shard": 0, "of": 4, "seed": 1})
