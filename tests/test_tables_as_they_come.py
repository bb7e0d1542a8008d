"""Read tables of users with other headers, quotes, encodings, dates and scripts; nothing is lost or guessed silently."""

import argparse
import csv
import json
from pathlib import Path

import polars as pl
import pytest

import clean_reviews
from mllm.core.errors import Failure
from mllm.data import cleaning, column_values, raw_files

NAMES = ["", "drugName", "condition", "review", "rating", "date", "usefulCount"]
HEADERS = {
    "as other hosts serve it": ["Unnamed: 0", *NAMES[1:]],
    "as id": ["id", *NAMES[1:]],
    "as Kaggle": ["uniqueID", *NAMES[1:]],
    "in a course": ["patient_id", *NAMES[1:]],
    "mapped": ["n", "medicine", "why", "text", "stars", "day", "votes"],
}
MAPPED = dict(
    zip(("id", "drug", "condition", "review", "rating", "date", "useful_count"), HEADERS["mapped"], strict=True)
)


def clean(folder: Path, train: Path, test: Path | None = None, **how) -> tuple[pl.DataFrame, dict]:
    """Run clean_reviews in this process."""
    given = {"columns": None, "repairs": "auto", "dates": None, "quotes": "csv", **how}
    paths = {name: folder / f"{name}.parquet" for name in ("reviews", "rejected")}
    clean_reviews.main(argparse.Namespace(train=train, test=test, quality=folder / "quality.json", **paths, **given))
    return pl.read_parquet(paths["reviews"]), json.loads((folder / "quality.json").read_text())


def under(folder: Path, source: Path, names: list[str], delimiter: str = "\t") -> Path:
    """Write the same rows with another header and another delimiter."""
    with source.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream, delimiter="\t"))
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / source.name
    with target.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, delimiter=delimiter).writerows([names, *rows[1:]])
    return target


@pytest.fixture(scope="module")
def official(real_rows, tmp_path_factory):
    """Clean the real rows with their own header."""
    return clean(tmp_path_factory.mktemp("own"), *(real_rows / f"drugsCom{n}_raw.tsv" for n in ("Train", "Test")))


@pytest.mark.parametrize("name", list(HEADERS))
def test_the_real_rows_are_the_same_reviews_under_all_headers(official, real_rows, tmp_path, name):
    """Splits and leaderboards are then the same, too, since they depend on this table and the seed only."""
    delimiter = "," if name == "as Kaggle" else "\t"
    files = [under(tmp_path, real_rows / f"drugsCom{n}_raw.tsv", HEADERS[name], delimiter) for n in ("Train", "Test")]
    columns = {ours: [theirs] for ours, theirs in MAPPED.items()} if name == "mapped" else None
    reviews, quality = clean(tmp_path, *files, columns=columns)
    assert reviews.drop("line").equals(official[0].drop("line"))
    assert quality == official[1]
    assert quality["train"]["reviews_quoted"] > 5000 and quality["conditions_mended"]["rows"] > 800


def test_repairs_can_be_asked_for_and_turned_off(real_rows, tmp_path):
    reviews, quality = clean(tmp_path, real_rows / "drugsComTest_raw.tsv", repairs="none")
    assert reviews["review"].str.starts_with('"').mean() > 0.99 and not quality["conditions_mended"]["rows"]
    rows = "".join(f'{i},"""text number {i}"""\n' for i in range(5))
    (tmp_path / "few.csv").write_text("n,text\n" + rows)
    for repairs, first in (("auto", '"text number 0"'), ("uci", "text number 0")):
        found, _ = clean(tmp_path, tmp_path / "few.csv", columns={"review": ["text"]}, repairs=repairs)
        assert found["review"][0] == first


# ── Druglib.com: rows made up under its header ──

DRUGLIB = ["urlDrugName", "rating", "effectiveness", "sideEffects", "condition", "benefitsReview", "sideEffectsReview", "commentsReview"]  # fmt: skip
THREE = {"review": DRUGLIB[5:], "drug": ["urlDrugName"], "rating": ["rating"], "condition": ["condition"]}


@pytest.mark.parametrize(("first", "delimiter"), [("", "\t"), ("Unnamed: 0", "\t"), ("id", ","), ("index", ";")])
def test_druglib_s_rows_are_the_same_reviews_under_all_headers(tmp_path, first, delimiter):
    with (tmp_path / "d.tsv").open("w", newline="") as stream:
        rows = [
            [2000 + i, "enalapril", i % 10 + 1, "High", "Mild", "flu", f"slowed {i}", 'a "dry" cough', ""]
            for i in range(30)
        ]
        csv.writer(stream, delimiter=delimiter).writerows([[first, *DRUGLIB], *rows])
    reviews, _ = clean(tmp_path, tmp_path / "d.tsv", columns={"id": [first], **THREE})
    assert reviews["review_id"].to_list() == list(range(2000, 2030))
    assert reviews["review"][3] == 'slowed 3\n\na "dry" cough'
    assert reviews["condition"].unique().to_list() == ["flu"]


# ── Quotation marks that are plain characters ──


def stray(delimiter: str, opens: int = 5, closes: int = 45) -> str:
    texts = {opens: '"so bad', closes: 'he said it was "fine"'}
    rows = [delimiter.join([str(i), texts.get(i, f"review number {i}"), str(i % 10 + 1)]) for i in range(60)]
    return "\n".join([delimiter.join(["id", "review", "rating"]), *rows]) + "\n"


COLUMNS = {"id": ["id"], "review": ["review"], "rating": ["rating"]}


@pytest.mark.parametrize(("opens", "closes"), [(5, 45), (5, 6), (58, 59)])
@pytest.mark.parametrize("delimiter", ["\t", ",", ";"])
def test_a_stray_quotation_mark_swallows_no_rows(tmp_path, delimiter, opens, closes):
    file = tmp_path / "r.tsv"
    text = stray(delimiter, opens, closes).replace(f'he said it was "fine"{delimiter}', f'so "good"{delimiter}')
    file.write_text(text.replace('so "good"', 'so good"'))
    with pytest.raises(
        Failure, match=rf"line {opens + 3}: a quotation mark on line {opens + 2} makes this row .*data\.quotes: none"
    ):
        raw_files.read_raw(file, COLUMNS)
    found = raw_files.read_raw(file, COLUMNS, quotes=False)
    assert found.height == 60 and found["review"][opens] == '"so bad' and found["review"][closes] == 'so good"'


@pytest.mark.parametrize("delimiter", ["\t", ",", ";"])
def test_texts_of_several_lines_with_commas_are_no_rows(tmp_path, delimiter):
    with (tmp_path / "r.csv").open("w", newline="") as stream:
        texts = [f"first, then {i}\nsecond, third, and so on\nlast, of all" for i in range(30)]
        csv.writer(stream, delimiter=delimiter).writerows(
            [["id", "review", "rating"], *([i, t, 5] for i, t in enumerate(texts))]
        )
    assert raw_files.read_raw(tmp_path / "r.csv", COLUMNS)["review"].to_list() == texts


def test_an_open_quotation_mark_says_what_may_be_meant(tmp_path):
    (tmp_path / "r.tsv").write_text('id\treview\trating\n1\t"so bad\t3\n2\tgood\t9\n')
    with pytest.raises(Failure, match=r"never closed.*data\.quotes: none"):
        raw_files.read_raw(tmp_path / "r.tsv", COLUMNS)
    assert raw_files.read_raw(tmp_path / "r.tsv", COLUMNS, quotes=False)["review"].to_list() == ['"so bad', "good"]


# ── Paths, encodings, other kinds of files ──


@pytest.mark.parametrize("name", ["tr[12].csv", "tr*.csv", "tr?.csv"])
def test_a_path_is_no_pattern(tmp_path, name):
    for other in ("tr1.csv", "tr2.csv", name):
        (tmp_path / other).write_text(f"review\nfrom {other}\n")
    assert raw_files.read_raw(tmp_path / name, {"review": ["review"]})["review"].to_list() == [f"from {name}"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("review\nok\n".encode("utf-16"), "UTF-16 .*iconv -f UTF-16"),
        ("review\nok\n".encode("utf-16-be").join([b"\xfe\xff", b""]), "UTF-16"),
        (b"\x1f\x8b\x08\x00", "gzip. Fix: gunzip"),
        (b"PAR1\x15\x04", "a parquet file"),
        (b"PK\x03\x04\x14", "a zip archive or an Excel file"),
        ("review\ncafé\n".encode("cp1252"), "with the file's own encoding"),
    ],
)
def test_what_is_no_table_in_utf8_is_named(tmp_path, content, message):
    (tmp_path / "r.csv").write_bytes(content)
    with pytest.raises(Failure, match=message) as refused:
        raw_files.read_raw(tmp_path / "r.csv", {"review": ["review"]})
    assert "8859" not in str(refused.value)


# ── Values, dates, words ──


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["01", "1"], pl.String),
        (["007", "12"], pl.String),
        (["1", "2"], pl.Int64),
        (["0", "0.5"], pl.Float64),
        (["1", "x"], pl.String),
    ],
)
def test_two_spellings_stay_two_values(values, kind):
    typed = column_values.typed(pl.DataFrame({"kind": values}))
    assert typed["kind"].dtype == kind and typed["kind"].n_unique() == 2


def dated(values, order=None):
    raw = pl.DataFrame(
        {"line": range(len(values)), "review": [f"text {i}" for i in range(len(values))], "date": values}
    )
    kept, _, counts = cleaning.clean(
        raw.with_columns(pl.col("line").cast(pl.Int64)), "train", repairs="none", dates=order
    )
    return [str(d) for d in kept["date"]], counts["dates_unreadable"]


def test_one_order_of_days_and_months_for_a_column():
    assert dated(["04/05/2012", "05/20/2012"])[0] == ["2012-04-05", "2012-05-20"]
    assert dated(["04/05/2012", "20/05/2012"])[0] == ["2012-05-04", "2012-05-20"]
    assert dated(["04/05/2012"], "day-first")[0] == ["2012-05-04"]
    assert dated(["04/05/12", "4.5.2012", "2012-05-04", "May 4, 2012"], "day-first")[0] == ["2012-05-04"] * 4
    assert dated(["04/05/2012", "20/05/2012"], "month-first") == (["2012-04-05", "None"], 1)
    for values in (["04/05/2012"], ["04/05/12", "2012-05-20"], ["20/05/2012", "05/20/2012"]):
        with pytest.raises(
            Failure, match=r"data\.train: column date .* Fix: set data\.dates: month-first or day-first"
        ):
            dated(values)


def test_many_dates_that_cannot_be_read_are_a_warning(tmp_path, caplog):
    (tmp_path / "r.csv").write_text("review,date\n" + "".join(f"text {i},sometime {i}\n" for i in range(30)))
    clean(tmp_path, tmp_path / "r.csv", columns={"review": ["review"], "date": ["date"]})
    assert "WARNING" in caplog.text and "30 of 30 dates cannot be read" in caplog.text


@pytest.mark.parametrize(
    ("text", "kept"), [("好", 1), ("ठीक है", 1), ("ดีมาก", 1), ("좋아", 1), ("ok", 1), ("a b", 0), ("5 !", 0)]
)
def test_a_word_of_any_script_is_a_word(text, kept):
    found, _, _ = cleaning.clean(pl.DataFrame({"line": [2], "review": [text]}), "train", repairs="none")
    assert found.height == kept
