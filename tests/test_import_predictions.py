"""Test predictions made elsewhere as an experiment: published tables, and every error that a table may have."""

import json

import numpy as np
import polars as pl
import pytest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

import mllm
from conftest import REAL, run_script
from mllm.data import labelled
from mllm.experiment import grid, load, yaml_files

REPORTED = {
    "expert_0": 0.471310332000372, "expert_1": 0.4858179112805729, "expert_2": 0.47633218636659536,
    "expert_3": 0.4567097554170929, "expert_4": 0.47828512973123777, "linear": 0.46396354505719334,
    "ties": 0.48488793824979076, "dare_ties": 0.4775411513066121, "dare_linear": 0.462475588207942,
    "gpt2_xl": 0.4630335720264112,
}  # fmt: skip


def test_the_seed_experiments_own_tables(project):
    """Import ten real prediction tables: their authors' accuracies to all digits, and their verdict."""
    folder = REAL / "mllm-2024"
    if not folder.exists():
        pytest.skip(f"no tables at {folder}")
    arguments = ("--configfile", "config/mllm-2024.yaml", "--config", f"candidates={{from: {folder}}}")
    out = project.snakemake("--cores", "2", *arguments)
    assert "mllm-2024: 16 candidates, task rating" in out
    results = project.folder / "results/mllm-2024"
    board = pl.read_parquet(results / "leaderboard.parquet")
    found = dict(board.select("candidate", "all_accuracy").rows())
    assert {n: found[n] for n in REPORTED} == REPORTED
    assert set(board.filter(pl.col("kind") == "blend")["method"]) == {
        "soft_vote", "log_vote", "majority_vote", "weighted_vote", "stacking", "greedy"
    }  # fmt: skip
    assert (
        (board["test_accuracy_low"] < board["test_accuracy"]) & (board["test_accuracy"] < board["test_accuracy_high"])
    ).all()

    # Repeat the tests with statsmodels, from the tables themselves.
    claims = pl.read_parquet(results / "comparisons.parquet").filter("claim")
    assert claims.height == 4 * 3
    review = pl.read_parquet(results / "data/test.parquet")["review_id"].to_numpy()
    right = {}
    for name in {*claims["candidate"], "expert_1", "gpt2_xl"}:
        table = pl.read_parquet(folder / f"{name}.parquet")[review]
        right[name] = table.select(pl.exclude("true_label")).to_numpy().argmax(1) == table["true_label"].to_numpy()
    for row in claims.filter(pl.col("against").is_in(list(right))).iter_rows(named=True):
        a, b = right[row["candidate"]], right[row["against"]]
        counts = [[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]]
        assert row["p_mcnemar_exact"] == pytest.approx(mcnemar(counts, exact=True).pvalue, rel=1e-9)
        assert row["difference"] == pytest.approx(a.mean() - b.mean(), abs=1e-12)
    rest = claims.filter(pl.col("family") == "secondary")
    holm = multipletests(rest["p_mcnemar"], method="holm")[1]
    assert rest.height == claims.height - 1 and rest["p_mcnemar_holm"].to_list() == pytest.approx(list(holm))
    ties = claims.filter((pl.col("candidate") == "ties") & (pl.col("against") == "gpt2_xl")).row(0, named=True)
    assert ties["cost_ratio"] == pytest.approx(1 / 12.516, rel=1e-3)
    assert f"{ties['difference']:+.3f}" in (results / "verdict.md").read_text()
    assert not project.planned(*arguments)


RAW = {
    "name": "own", "data": {"source": "predictions"}, "split": {"mode": "random", "valid": 0.4},
    "tasks": [{"name": "mood", "column": "label", "classes": {"bad": [0], "so so": [1], "good": [2]}, "ordered": True}],
    "candidates": {"from": "", "kinds": {"expert": ["a", "b"], "merge": ["ties-*"]}},
    "blends": [{"name": "vote", "method": "soft_vote", "members": ["a", "b"]}],
}  # fmt: skip


def own_tables(folder, damage=lambda tables: None):
    """Make three tables of 100 reviews, and their experiment."""
    rng = np.random.default_rng(0)
    truth = np.arange(100) % 3
    tables = {}
    for name, skill in (("a", 1.0), ("b", 2.0), ("ties-1", 3.0)):
        logits = rng.normal(size=(100, 3)) + skill * np.eye(3)[truth]
        logp = logits - np.logaddexp.reduce(logits, axis=1)[:, None]
        tables[name] = pl.DataFrame({
            "review_id": [f"r{i:03}" for i in range(100)], "label": truth, "condition": ["Pain", "Acne"] * 50,
            **{f"logp_{k}": logp[:, k] for k in range(3)},
        })  # fmt: skip
    damage(tables)
    folder.mkdir(exist_ok=True)
    for name, table in tables.items():
        table.write_csv(folder / f"{name}.csv") if name == "b" else table.write_parquet(folder / f"{name}.parquet")
    raw = {**RAW, "candidates": {**RAW["candidates"], "from": str(folder)}}
    (folder.parent / "own.yaml").write_text(json.dumps(raw))
    return ["--experiment", folder.parent / "own.yaml", "--results", folder.parent / "results"]


def test_tables_are_taken_over_whole(tmp_path):
    def shuffle(tables):
        tables["b"] = tables["b"].sample(fraction=1.0, shuffle=True, seed=1)  # the order of rows has no meaning
        tables["a"] = tables["a"].with_columns(label=pl.col("label").replace_strict({0: "bad", 1: "so so", 2: "good"}))

    arguments = own_tables(tmp_path / "tables", shuffle)
    run_script("import_predictions", *arguments)
    data = {s: pl.read_parquet(tmp_path / f"results/data/{s}.parquet") for s in ("valid", "test")}
    assert (data["valid"].height, data["test"].height) == (40, 60)
    for name in ("a", "b", "ties-1"):
        table = pl.read_parquet(tmp_path / f"results/predictions/{name}.parquet")
        assert table["label"].to_list() == [int(r[1:]) % 3 for r in table["review_id"]]
        assert set(table.filter(pl.col("split") == "valid")["review_id"]) == set(data["valid"]["review_id"])
    assert "condition" in data["test"].columns  # defines slices
    run_script("blend", "--method", "stacking", "--data", tmp_path / "results/data", "--task", "mood", "--seed", 1,
               "--predictions", *(tmp_path / f"results/predictions/{n}.parquet" for n in "ab"),
               "--costs", *(tmp_path / f"results/predictions/{n}.cost.json" for n in "ab"),
               "--output", tmp_path / "results/predictions/vote.parquet", "--cost", tmp_path / "results/predictions/vote.cost.json")  # fmt: skip
    run_script("score", *arguments, "--output", tmp_path / "results/scores")
    run_script("leaderboard", *arguments)
    run_script("compare", *arguments)
    found = json.loads((tmp_path / "results/scores/ties-1.json").read_text())
    assert set(found["scores"]) == {"valid", "test", "all"} and found["method"] == "ties"
    assert set(found["recall"]["test"]) == {"bad", "so so", "good"}
    assert np.array(found["confusion"]["all"]).sum() == 100


def test_a_column_split_is_used(tmp_path):
    def add(tables):
        for name, table in tables.items():
            tables[name] = table.with_columns(split=pl.Series(["valid"] * 10 + ["test"] * 90))

    run_script("import_predictions", *own_tables(tmp_path / "tables", add))
    assert pl.read_parquet(tmp_path / "results/data/valid.parquet").height == 10


def change(name, function):
    def damage(tables):
        tables[name] = function(tables[name])

    return damage


def at(row, **values):
    return lambda t: t.with_columns(
        pl.when(pl.int_range(pl.len()) == row).then(pl.lit(v, t.schema[c])).otherwise(c).alias(c)
        for c, v in values.items()
    )


BAD = [
    (change("ties-1", lambda t: t[:97]), "ties-1.parquet: 3 reviews of {folder}/a.parquet are missing, the first: r097"),
    (change("a", lambda t: t[:99]), "a.parquet: 1 reviews of {folder}/b.csv are missing, the first: r099"),
    (change("b", lambda t: pl.concat([t, t[4:5]])), "b.csv: review r004 occurs 2 times"),
    (change("b", at(7, logp_0=0.5)), "b.csv: review r007: its 3 numbers as log-probabilities sum to"),
    (change("a", at(7, logp_1=float("nan"))), "a.parquet: review r007: its 3 numbers as log-probabilities sum to nan"),
    (change("ties-1", at(8, label=0)), "ties-1.parquet: review r008 has label 0, in {folder}/a.parquet it is 2 (1 of 100"),
    (change("a", at(8, label=3)), "a.parquet: label is 3 in 1 rows; expected one of 0, 1, 2"),
    (change("a", lambda t: t.with_columns(label=pl.lit("meh"))), "a.parquet: label is 'meh' in 100 rows; expected one of bad, so so, good, 0, 1, 2"),
    (change("a", lambda t: t.drop("logp_2")), "a.parquet: no column logp_2; found review_id, label, condition, logp_0"),
    (change("a", lambda t: t.drop("label")), "a.parquet: no column label"),
    (change("a", lambda t: t.with_columns(split=pl.lit("valid"))), "b.csv: the column split differs from {folder}/a.parquet. Fix: give all tables the same, or none"),
    (change("a", lambda t: t.with_columns(label=pl.col("label") + 0.5)), "a.parquet: label is 0.5 in 100 rows; expected one of 0, 1, 2"),
    (change("b", lambda t: t[:0]), "b.csv: has no rows"),
    (change("b", at(3, review_id=None)), "b.csv: review_id is empty in 1 rows"),
    (lambda tables: tables.update({n: t.with_columns(split=pl.Series(["valid", "Test"] * 50)) for n, t in tables.items()}),
     "a.parquet: split is Test, valid; expected valid and test"),
    (lambda tables: tables.update({n: t.with_columns(split=pl.Series([0, 1] * 50)) for n, t in tables.items()}),
     "a.parquet: split is 0, 1; expected valid and test"),
    (change("ties-1", lambda t: t.with_columns(split=pl.Series(["valid", "test"] * 50))), "a.parquet: the column split differs from {folder}/ties-1.parquet"),
    (change("b", lambda t: t.drop("review_id")), "b.csv: its reviews are identified by UInt32, in {folder}/a.parquet by String"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "message"), BAD, ids=range(len(BAD)))
def test_a_bad_table_is_one_clear_error(tmp_path, damage, message):
    folder = tmp_path / "tables"
    arguments = own_tables(folder, damage)
    before = tmp_path / "results/predictions/a.parquet"
    before.parent.mkdir(parents=True)
    before.write_text("before")
    printed = run_script("import_predictions", *arguments, ok=False)
    assert printed.startswith(f"error: {folder}/") and len(printed.splitlines()) == 1
    assert message.format(folder=folder) in printed
    assert before.read_text() == "before"


def imported(tmp_path, raw, **tables):
    """Import given tables; return the output, and validation and test together."""
    folder = tmp_path / "tables"
    folder.mkdir()
    for name, table in tables.items():
        table.write_parquet(folder / f"{name}.parquet")
    raw = {**RAW, "blends": [], **raw}
    raw["candidates"] = {"kinds": {"expert": ["*"]}, **raw["candidates"], "from": str(folder)}
    (tmp_path / "own.yaml").write_text(json.dumps(raw))
    arguments = ["--experiment", tmp_path / "own.yaml", "--results", tmp_path / "results"]
    run_script("import_predictions", *arguments)
    return pl.concat([labelled.with_labels(tmp_path / "results/data", s, "t") for s in ("valid", "test")]).sort(
        "review_id"
    )


def test_labels_are_the_values_of_the_experiments_classes(tmp_path):
    """Labels are no positions: the classes have another order than the values."""
    classes = {"good": [1], "bad": [0, 2]}
    task = {"name": "t", "column": "y", "classes": classes, "ordered": True}
    y = pl.Series([0, 1, 2, 1] * 10)
    table = pl.DataFrame(
        {"y": y, "p_good": [0.2] * 40, "p_bad": [0.8] * 40, "label": ["mine"] * 40, "group": [None] * 40}
    )
    how = {"label": "y", "columns": ["p_good", "p_bad"], "values": "probabilities"}
    found = imported(tmp_path, {"tasks": [task], "candidates": how}, a=table)
    assert found["label_t"].to_list() == [1, 0, 1, 0] * 10
    assert (
        "label" not in found.columns and found["group"].n_unique() == 40
    )  # this project's names are no columns of these tables


@pytest.mark.parametrize(("low", "high", "first"), [(0, 9, 0), (1, 10, 0), (1, 9, None)])
def test_ratings_may_be_numbered_or_said(tmp_path, low, high, first):
    values = pl.DataFrame({"label": list(range(low, high + 1)) * 5})
    table = values.with_columns(**{f"logp_{k}": pl.lit(float(np.log(0.1))) for k in range(10)})
    raw = {"tasks": [{"name": "t", "label": "rating"}], "candidates": {}}
    if first is None:
        with pytest.raises(
            AssertionError,
            match=r"is from 1 to 9: ratings \(1 to 10\) or class numbers \(0 to 9\)\. Fix: write ratings as text",
        ):
            imported(tmp_path, raw, a=table)
    else:
        assert imported(tmp_path, raw, a=table)["label_t"].to_list() == list(range(10)) * 5


@pytest.mark.parametrize("what", ["both splits", "other groups"])
def test_texts_stay_together(tmp_path, what):
    def group(tables):
        for i, (name, table) in enumerate(tables.items()):
            size = 3 if i == 2 and what == "other groups" else 2
            split = {"split": pl.Series(["valid", "test"] * 50)} if what == "both splits" else {}
            tables[name] = table.with_columns(text=pl.int_range(pl.len()) // size, **split)

    arguments = own_tables(tmp_path / "tables", group)
    raw = yaml_files.read_yaml(tmp_path / "own.yaml")
    raw["candidates"]["group"] = "text"
    (tmp_path / "own.yaml").write_text(json.dumps(raw))
    printed = run_script("import_predictions", *arguments, ok=False)
    expected = {"both splits": "a.parquet: 50 texts are in both validation and test, the first: review r000",
                "other groups": "ties-1.parquet: reviews are grouped into other texts than in"}  # fmt: skip
    assert expected[what] in printed


def test_what_is_no_table_is_said_so(tmp_path):
    arguments = own_tables(tmp_path / "tables")
    (tmp_path / "tables/a.parquet").write_text("nothing")
    assert "a.parquet: cannot be read as a table" in run_script("import_predictions", *arguments, ok=False)


def experiment(tmp_path, **changes):
    own_tables(tmp_path / "tables")
    raw = yaml_files.read_yaml(tmp_path / "own.yaml") | changes
    return grid.build(load.parse(raw))


def test_kinds_and_methods_come_from_names(tmp_path):
    found = experiment(tmp_path).candidates
    assert {n: c.kind for n, c in found.items()} == {"a": "expert", "b": "expert", "ties-1": "merge", "vote": "blend"}
    assert found["ties-1"].method == "ties"


@pytest.mark.parametrize(
    ("kinds", "message"),
    [({"expert": ["a", "b", "c"], "merge": ["t*"]}, "'c' matches none of a, b, ties-1"),
     ({"expert": ["a"], "merge": ["t*"]}, "no kind for b"),
     ({"expert": ["*"], "merge": ["t*"]}, "'t*' matches 'ties-1', which is also expert")],
)  # fmt: skip
def test_kinds_that_do_not_fit(tmp_path, kinds, message):
    with pytest.raises(yaml_files.ExperimentError, match=r"candidates\.kinds") as caught:
        experiment(tmp_path, candidates={"from": str(tmp_path / "tables"), "kinds": kinds})
    assert message in str(caught.value)


def test_what_does_not_go_together(tmp_path):
    with pytest.raises(yaml_files.ExperimentError) as caught:
        experiment(
            tmp_path, base="x", split={"mode": "official", "test": 0.5}, candidates=None,
            tasks=[{"name": "t", "label": "condition", "top": 3}, {"name": "s", "label": "rating"}],
        )  # fmt: skip
    said = str(caught.value)
    for piece in ("base: found beside data.source: predictions", "candidates: missing", "split.mode: found official, expected random",
                  "split.test", "tasks: found 2", "tasks[0].label: condition has no built-in classes"):  # fmt: skip
        assert piece in said
    with pytest.raises(yaml_files.ExperimentError, match="no folder '/nowhere'"):
        experiment(tmp_path, candidates={"from": "/nowhere", "kinds": {"expert": ["*"]}})


def test_tables_of_further_trainings_are_runs_of_their_candidates(tmp_path):
    """Run from the tables to the verdict: means over runs, each run kept, claims about the recipe."""

    def again(tables):
        for name in list(tables):
            turned = {f"logp_{k}": pl.col(f"logp_{(k + 1) % 3}") for k in range(3)}
            some = pl.int_range(pl.len()) % 7 == 0  # this training turns them into something else
            tables[f"{name}@2"] = tables[name].with_columns(
                **{column: pl.when(some).then(other).otherwise(pl.col(column)) for column, other in turned.items()}
            )

    arguments = own_tables(tmp_path / "tables", again)
    raw = json.loads((tmp_path / "own.yaml").read_text()) | {"blends": []}
    (tmp_path / "own.yaml").write_text(json.dumps(raw))
    results = tmp_path / "results"
    run_script("import_predictions", *arguments)
    run_script("score", *arguments, "--output", results / "scores")
    run_script("leaderboard", *arguments)
    run_script("compare", *arguments)
    opened = mllm.open(results)
    assert sorted(opened.candidates) == ["a", "b", "ties-1"]
    assert sorted(opened.runs["run"]) == ["a", "a@2", "b", "b@2", "ties-1", "ties-1@2"]
    of_runs = opened.runs.group_by("candidate").agg(pl.col("test_macro_f1").mean(), sd=pl.col("test_macro_f1").std())
    both = opened.leaderboard.join(of_runs, on="candidate")
    assert both["test_macro_f1"].to_list() == pytest.approx(both["test_macro_f1_right"].to_list())
    assert both["test_macro_f1_sd"].to_list() == pytest.approx(both["sd"].to_list())
    assert set(opened.comparisons["runs"]) == {2} and "Claims are about the recipe" in opened.verdict
    assert opened.predictions("a@2").height == 100


def test_a_further_run_needs_a_first_one(tmp_path):
    arguments = own_tables(tmp_path / "tables", lambda tables: tables.update({"c@2": tables["a"]}))
    printed = run_script("import_predictions", *arguments, ok=False)
    assert "'c@2' is a further run of 'c', whose table is missing" in printed
