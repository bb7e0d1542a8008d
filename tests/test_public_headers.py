"""Read the same rows as several hosts serve them: reviews, split and leaderboard do not depend on header or delimiter."""

import argparse
import csv
import datetime
import json
from pathlib import Path

import polars as pl
import pytest
import yaml

import clean_reviews
import fit_baseline
import import_predictions
import label_reviews
import leaderboard
import score
import split_reviews
from mllm.data import labelled

UCI = ["", "drugName", "condition", "review", "rating", "date", "usefulCount"]
HEADERS = {
    "UCI": UCI,
    "UCI, read and written by pandas": ["Unnamed: 0", *UCI[1:]],
    "Kaggle": ["uniqueID", *UCI[1:]],
    "Hugging Face": ["patient_id", *UCI[1:], "review_length"],
    "id": ["id", *UCI[1:]],
    "mapped": ["n", "medicine", "why", "text", "stars", "day", "votes"],
}
DRUGLIB = ["", "urlDrugName", "rating", "effectiveness", "sideEffects", "condition", "benefitsReview", "sideEffectsReview", "commentsReview"]  # fmt: skip
TASK = {"name": "mood", "label": "sentiment"}
CANDIDATES = ("tfidf", "majority")


def call(script, **values):
    script.main(argparse.Namespace(**{"log": None, "override": {}, "threads": 1, **values}))


def judged(folder: Path, train: Path, test: Path | None, **how) -> dict[str, object]:
    """Clean, split, label, fit TF-IDF and the majority, and score; return the result of each step for two files."""
    data, results = folder / "data", folder / "results"
    paths = {name: data / f"{name}.parquet" for name in ("reviews", "rejected")}
    call(
        clean_reviews, train=train, test=test, quality=data / "quality.json", **paths,
        **{"columns": None, "repairs": "auto", "dates": None, "quotes": "csv", **how},
    )  # fmt: skip
    split = {"mode": "official-clean" if test else "random", "valid": 0.2}
    call(split_reviews, reviews=paths["reviews"], split=split, seed=17, stratum=None if test else {**TASK, "name": "stratum"}, output=data)  # fmt: skip
    call(label_reviews, data=data, task=TASK, wheres={})
    tables = folder / "tables"
    tables.mkdir()
    for kind in CANDIDATES:
        made = {"output": folder / f"{kind}.parquet", "cost": folder / f"{kind}.json"}
        call(fit_baseline, kind=kind, data=data, task="mood", seed=17, **made)
        texts = labelled.labelled(data, ("valid", "test"), "mood").select("review_id", text="group")
        pl.read_parquet(folder / f"{kind}.parquet").join(texts, on="review_id").write_parquet(
            tables / f"{kind}.parquet"
        )
    raw = {
        "name": "x", "data": {"source": "predictions"}, "split": {"mode": "random"}, "tasks": [TASK],
        "candidates": {"from": str(tables), "group": "text", "kinds": {"expert": ["tfidf"], "reference": ["majority"]}},
    }  # fmt: skip
    (folder / "x.yaml").write_text(yaml.safe_dump(raw))
    call(import_predictions, experiment=[folder / "x.yaml"], results=results)
    call(score, experiment=[folder / "x.yaml"], results=results, output=results / "scores")
    call(leaderboard, experiment=[folder / "x.yaml"], results=results)
    return {
        "reviews": pl.read_parquet(paths["reviews"]).drop("line"),
        "split": json.loads((data / "split.json").read_text()) | {"sha256": None},
        "ids": {s: pl.read_parquet(data / f"{s}.parquet")["review_id"].to_list() for s in ("train", "valid", "test")},
        "leaderboard": (results / "leaderboard.csv").read_text(),
    }


def alike(found: dict[str, object], expected: dict[str, object]) -> None:
    assert found["reviews"].equals(expected["reviews"])
    for what in ("split", "ids", "leaderboard"):
        assert found[what] == expected[what], what


def rows_of(file: Path, number: int) -> list[list[str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return [row for row, _ in zip(csv.reader(stream, delimiter="\t"), range(number + 1), strict=False)]


def write(file: Path, rows: list[list[str]], delimiter: str) -> Path:
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, delimiter=delimiter).writerows(rows)
    return file


@pytest.fixture(scope="module")
def drugs_com(real_rows):
    """Return the first real rows of Drugs.com, train and test."""
    return [rows_of(real_rows / f"drugsCom{name}_raw.tsv", number) for name, number in (("Train", 700), ("Test", 500))]


@pytest.fixture(scope="module")
def official(drugs_com, tmp_path_factory):
    folder = tmp_path_factory.mktemp("official")
    return judged(folder, *(write(folder / f"{i}.tsv", rows, "\t") for i, rows in enumerate(drugs_com)))


def by_kaggle(day: str) -> str:
    """Write May 20, 2012 as in Kaggle's files: 20-May-12."""
    date = datetime.datetime.strptime(day, "%B %d, %Y")
    return f"{date.day}-{date:%b-%y}"


@pytest.mark.parametrize("name", [name for name in HEADERS if name != "UCI"])
def test_drugs_com_under_all_headers(drugs_com, official, tmp_path, name):
    files = []
    for i, rows in enumerate(drugs_com):
        changed = [[*row, *([str(len(row[3].split()))] if name == "Hugging Face" else [])] for row in rows[1:]]
        if name == "Kaggle":
            changed = [[*row[:5], by_kaggle(row[5]), row[6]] for row in changed]
        files.append(
            write(tmp_path / f"{i}.csv", [HEADERS[name], *changed], "," if name in ("Kaggle", "mapped") else "\t")
        )
    columns = {"id": "n", "drug": "medicine", "condition": "why", "review": "text", "rating": "stars", "date": "day", "useful_count": "votes"}  # fmt: skip
    how = {"columns": {ours: [theirs] for ours, theirs in columns.items()}} if name == "mapped" else {}
    found = judged(tmp_path, *files, **how)
    alike(found, official)
    assert found["reviews"].height > 1100 and not found["reviews"]["review"].str.starts_with('"').any()
    assert found["leaderboard"].count("\n") == 3


@pytest.mark.parametrize(("first", "delimiter"), [("Unnamed: 0", "\t"), ("reviewID", ","), ("id", ";")])
def test_druglib_s_columns_under_all_headers(tmp_path, first, delimiter):
    """Rows are invented under the header of Druglib.com, whose own rows are not available here."""
    words = ("it helped me a lot", "no effect at all", "a little better, then worse")
    rows = [
        [str(2000 + i), "enalapril", str((i * 7) % 10 + 1), "High", "Mild", "flu", f"{words[(i * 7) % 10 // 4]} {i}", 'a "dry" cough', ""]
        for i in range(200)
    ]  # fmt: skip
    columns = {"review": DRUGLIB[6:], "drug": ["urlDrugName"], "rating": ["rating"], "condition": ["condition"]}
    found = []
    for header, mark in ((DRUGLIB, "\t"), ([first, *DRUGLIB[1:]], delimiter)):
        folder = tmp_path / f"{len(found)}"
        folder.mkdir()
        file = write(folder / "d.tsv", [header, *rows], mark)
        found.append(judged(folder, file, None, columns={"id": [header[0]], **columns}))
    alike(*found)
    assert found[0]["reviews"].height == 200
