"""Reading, cleaning, splitting: against Python's own csv and html modules, and against counts made by hand."""

import csv
import html
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import run_script
from mllm import reviews, splits, synthetic
from mllm.cli import Failure, read_json

HEADER = "\tdrugName\tcondition\treview\trating\tdate\tusefulCount\r\n"
GOOD = '1\tLyrica\tPain\t"""It helps."""\t9.0\tMay 20, 2012\t27\r\n'


def raw(tmp_path: Path, body: str | bytes, header: str = HEADER) -> pl.DataFrame:
    file = tmp_path / "raw.tsv"
    file.write_bytes(header.encode() + (body if isinstance(body, bytes) else body.encode()))
    return reviews.read_raw(file)


def cleaned(tmp_path, body):
    return reviews.clean(raw(tmp_path, body), "train")


def by_csv(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream, delimiter="\t"))[1:]


def test_one_row(tmp_path):
    kept, rejected, _ = cleaned(tmp_path, GOOD)
    row = kept.row(0, named=True)
    assert (row["review_id"], row["drug"], row["condition"], row["review"]) == (1, "Lyrica", "Pain", "It helps.")
    assert (row["rating"], str(row["date"]), row["year"], row["useful_count"]) == (9, "2012-05-20", 2012, 27)
    assert not rejected.height


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"""it&#039;s"""', "it's"),
        ('"""it&amp;#039;s &amp;amp; more"""', "it's & more"),
        ('"""a ""quoted"" word"""', 'a "quoted" word'),
        ('"""one\r\r\ntwo"""', "one\ntwo"),
        ('"""\ttab"""', "tab"),
        ("plain", "plain"),
        ('"""AT&T; 5 &lt; 6"""', "AT&T; 5 < 6"),
    ],
)
def test_texts_are_repaired(tmp_path, text, expected):
    kept, _, _ = cleaned(tmp_path, f"1\tD\tPain\t{text}\t9.0\tMay 20, 2012\t0\r\n")
    assert kept["review"].to_list() == [expected]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ('x\tD\tPain\t"""a"""\t9.0\tMay 20, 2012\t0\r\n', "id is no whole number"),
        ('2\tD\tPain\t"""a"""\t11.0\tMay 20, 2012\t0\r\n', "rating is not 1 to 10"),
        ('2\tD\tPain\t"""a"""\t7.5\tMay 20, 2012\t0\r\n', "rating is not 1 to 10"),
        ('2\tD\tPain\t"""a"""\t\tMay 20, 2012\t0\r\n', "rating is not 1 to 10"),
        ('2\tD\tPain\t""" """\t9.0\tMay 20, 2012\t0\r\n', "review is empty"),
        (GOOD, "row stands twice"),
        ('1\tD\tPain\t"""other"""\t9.0\tMay 20, 2012\t0\r\n', "id stands twice"),
    ],
)
def test_rejected_rows_keep_reason_and_line(tmp_path, row, reason):
    two_lines = '7\tD\tPain\t"""a\r\r\nb"""\t9.0\tMay 20, 2012\t0\r\n'
    kept, rejected, counts = cleaned(tmp_path, GOOD + two_lines + row)
    assert kept["review_id"].to_list() == [1, 7]
    assert rejected.select("reason", "line").rows() == [(reason, 5)]
    assert counts["rejected"] == {reason: 1}


def test_conditions(tmp_path):
    shown = ["3</span> users found this comment helpful.", "", "  ", "Crohn&#039;s Disease"]
    body = "".join(f'{i}\tD\t{c}\t"""text {i}"""\t9.0\tMay 20, 2012\t0\r\n' for i, c in enumerate(shown))
    kept, _, counts = cleaned(tmp_path, body)
    assert kept["condition"].to_list() == [None, None, None, "Crohn's Disease"]
    assert (counts["conditions_with_span"], counts["conditions_missing"]) == (1, 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD.encode() + b"2\tD\tPain\tcaf\xe9\t9.0\tMay 20, 2012\t0\r\n", r"raw\.tsv, line 3: byte 0xe9 .* not UTF-8"),
        (b'2\tD\tPain\t"""never closed\t9.0\tMay 20, 2012\t0\r\n', r"raw\.tsv"),
        (b"2\tD\tPain\ttext\t9.0\tMay 20, 2012\t0\textra\r\n", r"raw\.tsv: not a tab-separated table"),
    ],
)
def test_damaged_files(tmp_path, content, message):
    with pytest.raises(Failure, match=message):
        raw(tmp_path, content)


def test_a_missing_column_is_named(tmp_path):
    with pytest.raises(Failure, match=r"raw\.tsv, line 1: no column 'rating'; found '', 'drugName'"):
        raw(tmp_path, GOOD, HEADER.replace("\trating", ""))


def test_real_rows_are_read_as_csv_reads_them(real_rows):
    for name in ("drugsComTrain_raw.tsv", "drugsComTest_raw.tsv"):
        table = reviews.read_raw(real_rows / name)
        assert [list(r) for r in table.drop("line").iter_rows()] == by_csv(real_rows / name)
        # The line of a row is where its id stands in the file.
        lines = (real_rows / name).read_bytes().split(b"\n")
        for identifier, line in table.select("id", "line").rows()[:: table.height // 50]:
            assert lines[line - 1].startswith(identifier.encode() + b"\t")


def test_real_rows_counts_equal_an_independent_computation(real_rows):
    for name in ("drugsComTrain_raw.tsv", "drugsComTest_raw.tsv"):
        rows = by_csv(real_rows / name)
        kept, rejected, counts = reviews.clean(reviews.read_raw(real_rows / name), "train")
        assert counts["rows"] == len(rows) == kept.height + rejected.height
        assert counts["conditions_with_span"] == sum("</span>" in r[2] for r in rows)
        assert counts["conditions_missing"] == sum(not r[2].strip() for r in rows)
        assert counts["reviews_with_entities"] == sum(html.unescape(r[3]) != r[3] for r in rows)
        assert counts["dates_unreadable"] == 0
        texts = {int(r[0]): html.unescape(html.unescape(r[3])).replace("\r", "").strip()[1:-1].strip() for r in rows}
        different = [i for i, t in kept.select("review_id", "review").rows() if texts[i] != t]
        assert not different
        assert Counter(kept["rating"]) == Counter(int(float(r[4])) for r in rows)


def test_synthetic_files_have_the_quirks(tmp_path):
    train, test = synthetic.generate(2000, 3, 1)
    assert (train, test) == synthetic.generate(2000, 3, 1)
    assert train != synthetic.generate(2000, 3, 2)[0]
    for text in (train, test):
        assert text.startswith(HEADER)
        assert all(quirk in text for quirk in ("&#039;", "&amp;", "\r\r\n", "</span>", '"""'))
    (tmp_path / "t").write_text(train, newline="")
    table = reviews.read_raw(tmp_path / "t")
    assert table.height == 1500
    assert [list(r) for r in table.drop("line").iter_rows()] == by_csv(tmp_path / "t")
    kept, _, counts = reviews.clean(table, "train")
    assert not counts["rejected"]
    twins = reviews.group_texts(kept).group_by("group").agg(pl.col("drug").n_unique())
    assert (twins["drug"] > 1).mean() > 0.05


cell = st.text(st.characters(blacklist_characters="\x00", blacklist_categories=["Cs"]), max_size=30)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 30), cell, cell, cell, st.sampled_from(["1.0", "10.0", "0", "x", ""])), max_size=12
    )
)
def test_any_table_is_read_and_no_row_is_lost(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("fuzz")
    with (folder / "f.tsv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow(["", "drugName", "condition", "review", "rating", "date", "usefulCount"])
        writer.writerows([str(i), d, c, r, g, "May 20, 2012", "3"] for i, d, c, r, g in rows)
    table = reviews.read_raw(folder / "f.tsv")
    assert table["review"].to_list() == [r[3] for r in rows]
    kept, rejected, counts = reviews.clean(table, "train")
    assert kept.height + rejected.height == counts["rows"] == len(rows)
    assert sum(counts["rejected"].values()) == rejected.height


# ── Splits ──


def table(n: int = 300, leak: int = 20) -> pl.DataFrame:
    rows = [{"review_id": i, "file": "train", "review": f"text {i % 250}", "rating": i % 10 + 1} for i in range(n)]
    rows += [
        {"review_id": n + i, "file": "test", "review": f"Text  {i}" if i < leak else f"fresh {i}", "rating": i % 10 + 1}
        for i in range(100)
    ]
    conditions = ["Pain", "Acne", "Pain", None]
    frame = pl.DataFrame(rows).with_columns(condition=pl.Series([conditions[i % 4] for i in range(len(rows))]))
    return reviews.group_texts(frame)


def test_no_text_is_in_two_splits():
    parts, facts = splits.split(table(), "official-clean", 0.2, 5)
    texts = {name: {" ".join(t.lower().split()) for t in part["review"]} for name, part in parts.items()}
    assert not texts["train"] & texts["valid"]
    assert not (texts["train"] | texts["valid"]) & texts["test"]
    assert facts["test_rows_also_in_train"] == 20
    assert len(texts["valid"]) == round(0.2 * 250)
    assert parts["train"].height + parts["valid"].height == 300
    assert parts["test"].height == 80


def test_official_keeps_the_leak_and_says_so():
    parts, facts = splits.split(table(), "official", 0.2, 5)
    assert parts["test"].height == 100
    assert facts["test_rows_also_in_train"] == 20


def test_validation_depends_on_the_seed_and_not_on_the_order_of_rows():
    one = splits.split(table(), "official-clean", 0.2, 5)[0]["valid"]["review_id"]
    again = splits.split(table().sample(fraction=1, shuffle=True, seed=3), "official-clean", 0.2, 5)[0]["valid"][
        "review_id"
    ]
    other = splits.split(table(), "official-clean", 0.2, 6)[0]["valid"]["review_id"]
    assert set(one) == set(again)
    assert set(one) != set(other)


def test_labels():
    frame = pl.DataFrame({"rating": range(1, 11), "condition": ["a", "b", "b", None, "c", "c", "c", "a", "z", "b"]})
    of = lambda label, names: frame.select(x=splits.label_expression(label, names))["x"].to_list()  # noqa: E731
    assert of("rating", list(range(1, 11))) == list(range(10))
    assert of("sentiment", list(splits.SENTIMENTS)) == [0, 0, 0, 0, 1, 1, 2, 2, 2, 2]
    names = splits.label_map(frame, "condition", 2)
    assert names == ["b", "c"]
    assert of("condition", names) == [None, 0, 0, None, 1, 1, 1, None, None, 0]
    with pytest.raises(Failure, match="only 4 conditions"):
        splits.label_map(frame, "condition", 9)


def test_shards_are_equal_disjoint_and_whole():
    train = splits.split(table(), "official-clean", 0.2, 5)[0]["train"]
    shards = [splits.select_part(train, {"shard": i, "of": 7, "seed": 3}) for i in range(7)]
    groups = [set(s["group"]) for s in shards]
    assert sum(map(len, groups)) == len(set.union(*groups)) == train["group"].n_unique()
    assert max(map(len, groups)) - min(map(len, groups)) <= 1
    assert sum(s.height for s in shards) == train.height
    pain = splits.select_part(train, {"where": {"condition": ["Pain"]}})
    assert set(pain["condition"]) == {"Pain"}
    with pytest.raises(Failure, match=r"where\.condition: no train review has 'Gout'.*'Pain', 'Acne'"):
        splits.select_part(train, {"where": {"condition": ["Gout"]}})


# ── The scripts by hand ──


def clean_by_hand(tmp_path, train, test, ok=True):
    out = tmp_path / "out"
    arguments = ["--train", train, "--test", test, "--reviews", out / "reviews.parquet"]
    printed = run_script(
        "clean_reviews", *arguments, "--rejected", out / "rejected.parquet", "--quality", out / "quality.json", ok=ok
    )
    return out, printed


def split_by_hand(out, *, label="rating", valid=0.2, ok=True):
    tasks = f'[{{"name": "t", "label": "{label}"}}]'
    return run_script(
        "split_reviews", "--reviews", out / "reviews.parquet", "--mode", "official-clean", "--valid", valid,
        "--seed", 1, "--tasks", tasks, "--output", out, ok=ok,
    )  # fmt: skip


def rows_of(ratings, start=0, text="review"):
    return "".join(
        f'{start + i}\tD\tPain\t"""{text} {start + i}"""\t{r}.0\tMay 20, 2012\t0\r\n' for i, r in enumerate(ratings)
    )


def test_scripts_write_what_the_design_names(tmp_path):
    (tmp_path / "a.tsv").write_text(HEADER + rows_of([*range(1, 11)] * 30), newline="")
    (tmp_path / "b.tsv").write_text(HEADER + rows_of([*range(1, 11)] * 5, start=900, text="test"), newline="")
    out, _ = clean_by_hand(tmp_path, tmp_path / "a.tsv", tmp_path / "b.tsv")
    split_by_hand(out)
    found = {p.name for p in out.iterdir()}
    assert found == {
        "reviews.parquet",
        "rejected.parquet",
        "quality.json",
        "train.parquet",
        "valid.parquet",
        "test.parquet",
        "split.json",
    }
    facts = read_json(out / "split.json")
    assert facts["tasks"]["t"]["names"] == list(range(1, 11))
    assert facts["tasks"]["t"]["counts"]["test"] == {str(r): 5 for r in range(1, 11)}
    assert pl.read_parquet(out / "train.parquet")["label_t"].to_list()[:1] in ([0], [1], [2])


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (rows_of([1, 2]), "", "b.tsv: none of 0 rows is usable"),
        (rows_of([1, 2]), rows_of([3]), r"b.tsv: id 0 stands in both files (train line 2, test line 2)"),
        (rows_of([11, 12]), rows_of([3]), "a.tsv: none of 2 rows is usable: {'rating is not 1 to 10': 2}"),
    ],
)
def test_clean_reviews_says_what_is_wrong_and_writes_nothing(tmp_path, train, test, message):
    (tmp_path / "a.tsv").write_text(HEADER + train, newline="")
    (tmp_path / "b.tsv").write_text(HEADER + test, newline="")
    out, printed = clean_by_hand(tmp_path, tmp_path / "a.tsv", tmp_path / "b.tsv", ok=False)
    assert message in printed.splitlines()[-1]
    assert "Traceback" not in printed
    assert not out.exists() or not list(out.iterdir())


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ([*range(1, 11)] * 30, None, "test.parquet: no test review is left: of 300, 300 stand in the train file too"),
        ([1], [2] * 10, "train.parquet: no review is left of the train file's 1"),
        ([1, 2] * 50, [*range(1, 11)], "train.parquet: task 't' has no review of class 3, 4, 5, 6, 7, 8, 9, 10 among"),
        ([*range(1, 11)] * 30 + [1] * 1000, [1] * 50, "test.parquet: task 't' has no review of class 2,"),
    ],
)
def test_split_reviews_says_what_is_wrong_and_writes_nothing(tmp_path, train, test, message):
    (tmp_path / "a.tsv").write_text(HEADER + rows_of(train), newline="")
    same = rows_of(train).replace('"""review', '"""Review')
    second = "".join(
        f"{5000 + i}\t" + line.split("\t", 1)[1] + "\r\n" for i, line in enumerate(same.split("\r\n")[:-1])
    )
    (tmp_path / "b.tsv").write_text(HEADER + (second if test is None else rows_of(test, 5000, "t")), newline="")
    out, _ = clean_by_hand(tmp_path, tmp_path / "a.tsv", tmp_path / "b.tsv")
    before = {p.name for p in out.iterdir()}
    printed = split_by_hand(out, ok=False)
    assert message in printed.splitlines()[-1]
    assert {p.name for p in out.iterdir()} == before


def test_a_class_absent_from_validation_is_named(tmp_path):
    (tmp_path / "a.tsv").write_text(HEADER + rows_of([*range(1, 10)] * 100 + [10]), newline="")
    (tmp_path / "b.tsv").write_text(HEADER + rows_of([*range(1, 11)] * 5, start=5000, text="t"), newline="")
    out, _ = clean_by_hand(tmp_path, tmp_path / "a.tsv", tmp_path / "b.tsv")
    printed = split_by_hand(out, ok=False)
    assert "valid.parquet: task 't' has no review of class 10 among" in printed
    assert "split.valid" in printed
