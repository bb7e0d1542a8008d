"""Compare reading, cleaning and splitting with Python's own csv and html modules, and with counts made by hand."""

import csv
import html
import json
from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import run_script
from mllm.core.errors import Failure
from mllm.data import cleaning, column_values, condition_names, labelled, labels, raw_files, splitting, synthetic

HEADER = "\tdrugName\tcondition\treview\trating\tdate\tusefulCount\r\n"
GOOD = '1\tLyrica\tPain\t"""It helps."""\t9.0\tMay 20, 2012\t27\r\n'


def raw(tmp_path: Path, body: str | bytes, header: str = HEADER) -> pl.DataFrame:
    file = tmp_path / "raw.tsv"
    file.write_bytes(header.encode() + (body if isinstance(body, bytes) else body.encode()))
    return raw_files.read_raw(file)


def cleaned(tmp_path, body):
    return cleaning.clean(raw(tmp_path, body), "train")


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
        ('x\tD\tPain\t"""some"""\t9.0\tMay 20, 2012\t0\r\n', "id is not a whole number"),
        ('2\tD\tPain\t"""some"""\t11.0\tMay 20, 2012\t0\r\n', "rating is not 1 to 10"),
        ('2\tD\tPain\t"""some"""\t7.5\tMay 20, 2012\t0\r\n', "rating is not 1 to 10"),
        ('2\tD\tPain\t"""some"""\t\tMay 20, 2012\t0\r\n', "rating is not 1 to 10"),
        ('2\tD\tPain\t""" """\t9.0\tMay 20, 2012\t0\r\n', "review is empty"),
        (GOOD, "duplicate row"),
        ('1\tD\tPain\t"""other"""\t9.0\tMay 20, 2012\t0\r\n', "duplicate id"),
    ],
)
def test_rejected_rows_keep_reason_and_line(tmp_path, row, reason):
    two_lines = '7\tD\tPain\t"""aa\r\r\nbb"""\t9.0\tMay 20, 2012\t0\r\n'
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
        (
            b"2\tD\tPain\ttext\t9.0\tMay 20, 2012\t0\textra\r\n",
            r"raw\.tsv, line 2: found 8 fields, expected 7 as in the header",
        ),
    ],
)
def test_damaged_files(tmp_path, content, message):
    with pytest.raises(Failure, match=message):
        raw(tmp_path, content)


def test_a_missing_column_is_named(tmp_path):
    with pytest.raises(Failure, match=r"raw\.tsv, line 1: no column 'rating' \(found '', 'drugName'"):
        raw(tmp_path, GOOD, HEADER.replace("\trating", ""))


def test_real_rows_are_read_as_csv_reads_them(real_rows):
    for name in ("drugsComTrain_raw.tsv", "drugsComTest_raw.tsv"):
        table = raw_files.read_raw(real_rows / name)
        assert [
            list(r)
            for r in table.select("id", "drug", "condition", "review", "rating", "date", "useful_count").iter_rows()
        ] == by_csv(real_rows / name)
        # The line of a row is that of its id in the file.
        lines = (real_rows / name).read_bytes().split(b"\n")
        for identifier, line in table.select("id", "line").rows()[:: table.height // 50]:
            assert lines[line - 1].startswith(identifier.encode() + b"\t")


def test_real_rows_counts_equal_an_independent_computation(real_rows):
    for name in ("drugsComTrain_raw.tsv", "drugsComTest_raw.tsv"):
        rows = by_csv(real_rows / name)
        kept, rejected, counts = cleaning.clean(raw_files.read_raw(real_rows / name), "train")
        assert counts["rows"] == len(rows) == kept.height + rejected.height
        assert counts["conditions_with_span"] == sum("</span>" in r[2] for r in rows)
        assert counts["conditions_missing"] == sum(not r[2].strip() for r in rows)
        assert counts["reviews_with_entities"] == sum(html.unescape(r[3]) != r[3] for r in rows)
        assert counts["dates_unreadable"] == 0
        texts = {int(r[0]): html.unescape(html.unescape(r[3])).replace("\r", "").strip()[1:-1].strip() for r in rows}
        different = [i for i, t in kept.select("review_id", "review").rows() if texts[i] != t]
        assert not different
        assert Counter(kept["rating"]) == Counter(int(float(r[4])) for r in rows)


# ── Other tables ──

KAGGLE = "uniqueID,drugName,condition,review,rating,date,usefulCount\n"


def test_kaggle_s_files_are_the_same_reviews(tmp_path):
    (tmp_path / "k.csv").write_text(
        KAGGLE + '206461,Valsartan,Left Ventricular Dysfunction,"""It has no side effect, it&#039;s fine\r\nindeed"""'
        ",9,20-May-12,27\n"
    )
    kept, _, _ = cleaning.clean(raw_files.read_raw(tmp_path / "k.csv"), "train")
    row = kept.row(0, named=True)
    assert (row["review_id"], row["drug"], row["rating"], row["useful_count"]) == (206461, "Valsartan", 9, 27)
    assert row["review"] == "It has no side effect, it's fine\nindeed" and str(row["date"]) == "2012-05-20"


def test_druglib_yelp_and_imdb_are_expressible_without_code(tmp_path):
    (tmp_path / "druglib.tsv").write_text(
        "\turlDrugName\trating\teffectiveness\tsideEffects\tcondition\tbenefitsReview\tsideEffectsReview\tcommentsReview\n"
        '2202\tenalapril\t4\tHighly Effective\tMild Side Effects\theart failure\tslowed it\t"cough, dizzy"\t\n'
    )
    columns = {
        "id": [""], "drug": ["urlDrugName"], "rating": ["rating"], "condition": ["condition"],
        "review": ["benefitsReview", "sideEffectsReview", "commentsReview"], "effectiveness": ["effectiveness"],
    }  # fmt: skip
    kept, _, _ = cleaning.clean(raw_files.read_raw(tmp_path / "druglib.tsv", columns), "train", repairs="none")
    row = kept.row(0, named=True)
    assert row["review"] == "slowed it\n\ncough, dizzy"
    assert (row["review_id"], row["effectiveness"], row["date"]) == (2202, "Highly Effective", None)

    (tmp_path / "yelp.csv").write_text(
        'stars,text,date\n5.0,"Great tacos, ""really""",2016-03-09\n1.0,Awful,2018-01-02\n'
    )
    columns = {"review": ["text"], "stars": ["stars"], "date": ["date"]}
    kept, _, _ = cleaning.clean(raw_files.read_raw(tmp_path / "yelp.csv", columns), "train", 7, repairs="none")
    assert column_values.typed(kept)["stars"].to_list() == [5.0, 1.0] and kept["review_id"].to_list() == [7, 8]
    assert kept["review"][0] == 'Great tacos, "really"' and kept["rating"].to_list() == [None, None]
    assert kept["year"].to_list() == [2016, 2018]

    (tmp_path / "twice.csv").write_text("text,stars\nsame words,5\nother words,5\nsame words,5\nsame words,4\n")
    kept, rejected, _ = cleaning.clean(
        raw_files.read_raw(tmp_path / "twice.csv", {"review": ["text"], "stars": ["stars"]}), "train", repairs="none"
    )
    assert kept["line"].to_list() == [2, 3, 5] and rejected.select("line", "reason").rows() == [(4, "duplicate row")]

    (tmp_path / "imdb.csv").write_text('review,sentiment\n"One.<br /><br />Two & three",positive\nDull,negative\n')
    columns = {"review": ["review"], "sentiment": ["sentiment"]}
    kept, _, counts = cleaning.clean(raw_files.read_raw(tmp_path / "imdb.csv", columns), "train", repairs="none")
    assert kept["review"][0] == "One.\n\nTwo & three" and counts["reviews_with_tags"] == 1
    task = {"name": "t", "column": "sentiment", "classes": {"bad": ["negative"], "good": ["positive"]}}
    assert kept.select(x=labels.label_expression(task, ["bad", "good"], kept.schema))["x"].to_list() == [1, 0]


def test_a_column_more_changes_no_rows(tmp_path):
    """A row is a duplicate if all of the file's columns are the same, whether the experiment maps them or not."""
    (tmp_path / "a.csv").write_text("text,stars,more\nsame words,5,1\nsame words,5,2\nsame words, 5,1\n")
    columns = {"review": ["text"], "stars": ["stars"]}
    for mapped in (columns, columns | {"more": ["more"]}):
        kept, rejected, _ = cleaning.clean(raw_files.read_raw(tmp_path / "a.csv", mapped), "train", repairs="none")
        assert kept["line"].to_list() == [2, 3] and rejected["line"].to_list() == [4]
        assert set(kept.columns) >= set(mapped) and raw_files.AGAIN not in kept.columns


def test_a_row_means_the_same_whatever_its_neighbours(tmp_path):
    """Slices are processed separately: a line-break tag is a line break with or without another one nearby."""
    texts = ["bad &lt;br /&gt; drug", "One.<br />Two"]
    alone, beside = (
        cleaning.clean(pl.DataFrame({"line": range(len(t)), "review": t}), "x", repairs="none")[0]["review"][0]
        for t in (texts[:1], texts)
    )
    assert alone == beside == "bad \n drug"


def test_columns_of_one_s_own_have_one_type_over_all_files():
    parts = [
        cleaning.clean(pl.DataFrame({"line": range(2), "review": ["aa", "bb"], "stars": s}), f, repairs="none")[0]
        for f, s in (("train", ["5.0", "4.0"]), ("test", ["5", ""]))
    ]
    assert column_values.typed(pl.concat(parts))["stars"].to_list() == [5.0, 4.0, 5.0, None]
    mixed = pl.concat(parts).with_columns(stars=pl.Series(["5.0", "n/a", "5", None]))
    assert column_values.typed(mixed)["stars"].to_list() == ["5.0", "n/a", "5", None]


def test_whole_numbers_written_otherwise_and_numbers_of_refused_rows(tmp_path):
    body = '3.0\tD\tPain\t"""some"""\t\tMay 20, 2012\t7.0\r\n3\tD\tPain\t"""some"""\t9.0\tMay 20, 2012\tx\r\n'
    kept, rejected, counts = cleaned(tmp_path, body)
    assert kept.select("review_id", "useful_count").rows() == [(3, None)] and counts["useful_counts_unreadable"] == 1
    assert rejected.select("review_id", "useful_count", "reason").rows() == [(3, 7, "rating is not 1 to 10")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\nfirst\nsecond,5\n", r"t\.csv, line 2: found 1 fields, expected 2 as in the header"),
        ("a,b\nx,1\nfoo", r"t\.csv, line 3: found 1 fields"),
        ("a,b\nx,1\nwell, then,5\n", r"t\.csv, line 3: found 3 fields.*enclose fields .* in quotation marks"),
        ('a,b\n"two\nlines",1\nlast\n', r"t\.csv, line 4: found 1 fields"),
    ],
)
def test_rows_that_break_off_are_named(tmp_path, content, message):
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(Failure, match=message):
        raw_files.read_raw(tmp_path / "t.csv", {"review": ["a"], "stars": ["b"]})


def test_values_are_found_whatever_their_type():
    train = pl.DataFrame({"stars": [5.0, 4.5, None], "kind": ["1", "x", "y"], "year": [7, 8, None], "group": [1, 2, 3]})
    for where, rows in (
        ({"stars": [5]}, 1),
        ({"year": [7, "8"]}, 2),
        ({"stars": ["4.5", 5.0]}, 2),
        ({"kind": [1, "y"]}, 2),
    ):
        assert splitting.select_part(train, {"where": where}).height == rows
    with pytest.raises(Failure, match=r"where\.stars: no train review has 'many'; the most frequent are"):
        splitting.select_part(train, {"where": {"stars": ["many"]}})
    whole = train.select("stars", n=pl.int_range(pl.len()))  # whole numbers of 64 bits, some of which no float can hold
    assert splitting.select_part(whole, {"where": {"n": [0, "1", 2.0]}}).height == 3


def test_labels_of_one_s_own_over_numbers_and_words():
    frame = pl.DataFrame({"stars": [1.0, 2.0, 3.0, 5.0, None], "year": [2008, 2009, 2010, 2011, 2012]})
    task = {"name": "t", "column": "stars", "classes": {"low": [1, 2], "high": ["5"]}}
    found = frame.select(x=labels.label_expression(task, labels.label_map(frame, task), frame.schema))
    assert found["x"].to_list() == [0, 0, None, 1, None]
    assert not labels.is_ordered(task) and labels.is_ordered({**task, "ordered": True})
    with pytest.raises(Failure, match="class 'high': no review has 4, 'x' in stars; the most frequent are") as caught:
        splitting.check_values(
            frame, {**task, "classes": {"low": [1, "1.0"], "high": [5, 4, "x"]}}, {"e": {"year": ["2008", 1999]}}
        )
    assert "experts: e: where.year: no review has 1999;" in str(caught.value)
    assert "1.0 occurs 2 times in classes" in str(caught.value)


# ── Conditions ──

TEXTS = pl.Series(
    ["My fibromyalgia is better. Bipolar disorder too."] * 5 + ["I fear the ear infection. An ear ache."] * 40
    + ["fever", "a feverish day", "back pain, pain, pain"] * 5 + ["cold sore, cold sores"] * 9
)  # fmt: skip


def test_cut_conditions_are_restored_where_the_reviews_leave_no_doubt():
    cut = ["ibromyalgia", "Bipolar Disorde", "Rat-bite Feve", "Pain", "Ear Infection", "mance Anxiety", "Cold Sores"]
    assert condition_names.restore(cut, TEXTS) == {
        "ibromyalgia": "Fibromyalgia", "Bipolar Disorde": "Bipolar Disorder", "Rat-bite Feve": "Rat-bite Fever",
    }  # fmt: skip
    # Two possible words leave a doubt, and so does a word that occurs once.
    assert condition_names.restore(["atigue"], pl.Series(["fatigue"])) == {}
    assert condition_names.restore(["Disorde"], pl.Series(["disorder disordero"] * 9)) == {}
    assert condition_names.is_debris("min / sitagliptin)") and not condition_names.is_debris("Cancer (early)")


def test_real_conditions_against_a_list_made_by_hand(real_rows):
    by_hand = {
        "Bipolar Disorde": "Bipolar Disorder", "ibromyalgia": "Fibromyalgia", "Panic Disorde": "Panic Disorder",
        "Overactive Bladde": "Overactive Bladder", "Not Listed / Othe": "Not Listed / Other", "atigue": "Fatigue",
        "Breast Cance": "Breast Cancer", "Vertig": "Vertigo", "emale Infertility": "Female Infertility",
        "mance Anxiety": "Performance Anxiety", "Benign Essential Trem": "Benign Essential Tremor",
    }  # fmt: skip
    both = pl.concat(
        cleaning.clean(raw_files.read_raw(real_rows / f"drugsCom{n}_raw.tsv"), n)[0] for n in ("Train", "Test")
    )
    before = dict(both["condition"].drop_nulls().value_counts().iter_rows())
    restored, facts = cleaning.restore_conditions(both)
    assert {k: v for k, v in facts["names"].items() if k in by_hand} == by_hand
    assert facts["rows"] == sum(before[name] for name in facts["names"])
    after = dict(restored["condition"].drop_nulls().value_counts().iter_rows())
    assert after["Bipolar Disorder"] == before["Bipolar Disorde"] and "Bipolar Disorde" not in after
    # The cut took F, o and r from the ends: complete names that never had them there must stay as they are.
    for whole in ("Birth Control", "Depression", "Pain", "Acne", "High Blood Pressure", "Emergency Contraception"):
        assert after[whole] == before[whole]
    assert not any(condition_names.is_debris(c) for c in after)


def test_synthetic_files_have_the_quirks(tmp_path):
    train, test = synthetic.generate(2000, 3, 1)
    assert (train, test) == synthetic.generate(2000, 3, 1)
    assert train != synthetic.generate(2000, 3, 2)[0]
    for text in (train, test):
        assert text.startswith(HEADER)
        assert all(quirk in text for quirk in ("&#039;", "&amp;", "\r\r\n", "</span>", '"""'))
    (tmp_path / "t").write_text(train, newline="")
    table = raw_files.read_raw(tmp_path / "t")
    assert table.height == 1500
    assert [
        list(r) for r in table.select("id", "drug", "condition", "review", "rating", "date", "useful_count").iter_rows()
    ] == by_csv(tmp_path / "t")
    kept, _, counts = cleaning.clean(table, "train")
    assert not counts["rejected"]
    twins = cleaning.group_texts(kept).group_by("group").agg(pl.col("drug").n_unique())
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
    table = raw_files.read_raw(folder / "f.tsv")
    assert table["review"].to_list() == [r[3] for r in rows]
    kept, rejected, counts = cleaning.clean(table, "train")
    assert kept.height + rejected.height == counts["rows"] == len(rows)
    assert sum(counts["rejected"].values()) == rejected.height
    assert set(kept["line"]) | set(rejected["line"]) == set(table["line"])
    restored, _ = cleaning.restore_conditions(kept)
    grouped = cleaning.group_texts(restored)
    assert grouped["review"].to_list() == kept["review"].to_list()
    # Equal texts are one group, and a group has the id of its first review.
    assert grouped.group_by("review").agg(pl.col("group").n_unique())["group"].to_list() in (
        [],
        [1] * grouped["review"].n_unique(),
    )
    assert set(grouped["group"]) <= set(grouped["review_id"])


# ── Splits ──


def table(n: int = 300, leak: int = 20) -> pl.DataFrame:
    rows = [{"review_id": i, "file": "train", "review": f"text {i % 250}", "rating": i % 10 + 1} for i in range(n)]
    rows += [
        {"review_id": n + i, "file": "test", "review": f"Text  {i}" if i < leak else f"fresh {i}", "rating": i % 10 + 1}
        for i in range(100)
    ]
    conditions = ["Pain", "Acne", "Pain", None]
    frame = pl.DataFrame(rows).with_columns(condition=pl.Series([conditions[i % 4] for i in range(len(rows))]))
    return cleaning.group_texts(frame)


def test_no_text_is_in_two_splits():
    parts, facts = splitting.split(table(), {"mode": "official-clean", "valid": 0.2}, 5)
    texts = {name: {" ".join(t.lower().split()) for t in part["review"]} for name, part in parts.items()}
    assert not texts["train"] & texts["valid"]
    assert not (texts["train"] | texts["valid"]) & texts["test"]
    assert facts["test_rows_also_in_train"] == 20
    assert len(texts["valid"]) == round(0.2 * 250)
    assert parts["train"].height + parts["valid"].height == 300
    assert parts["test"].height == 80


def test_official_keeps_the_leak_and_says_so():
    parts, facts = splitting.split(table(), {"mode": "official", "valid": 0.2}, 5)
    assert parts["test"].height == 100
    assert facts["test_rows_also_in_train"] == 20


def test_validation_depends_on_the_seed_and_not_on_the_order_of_rows():
    one = splitting.split(table(), {"mode": "official-clean", "valid": 0.2}, 5)[0]["valid"]["review_id"]
    again = splitting.split(
        table().sample(fraction=1, shuffle=True, seed=3), {"mode": "official-clean", "valid": 0.2}, 5
    )[0]["valid"]["review_id"]
    other = splitting.split(table(), {"mode": "official-clean", "valid": 0.2}, 6)[0]["valid"]["review_id"]
    assert set(one) == set(again)
    assert set(one) != set(other)


def test_a_random_split_keeps_texts_together_and_shares_of_classes_alike():
    frame = table(n=2000, leak=50).with_columns(label=pl.col("rating") > 8)
    how = {"mode": "random", "valid": 0.2, "test": 0.3}
    parts, _ = splitting.split(frame, how, 5, pl.col("label"))
    texts = {name: {" ".join(t.lower().split()) for t in part["review"]} for name, part in parts.items()}
    assert not texts["train"] & texts["valid"] and not (texts["train"] | texts["valid"]) & texts["test"]
    assert sum(part.height for part in parts.values()) == frame.height
    first = frame.sort("review_id").unique("group", keep="first")
    for name, share in (("train", 0.5), ("valid", 0.2), ("test", 0.3)):
        for label in (True, False):
            groups = first.filter((pl.col("label") == label) & pl.col("group").is_in(parts[name]["group"].implode()))
            assert groups.height == pytest.approx(share * first.filter(pl.col("label") == label).height, abs=1)
    again = splitting.split(frame.sample(fraction=1, shuffle=True, seed=1), how, 5, pl.col("label"))[0]
    assert all(set(again[name]["review_id"]) == set(parts[name]["review_id"]) for name in parts)
    other = splitting.split(frame, how, 6, pl.col("label"))[0]
    assert set(other["test"]["review_id"]) != set(parts["test"]["review_id"])


def test_caps_are_per_class_and_seeded():
    train = table().with_columns(label_t=pl.when(pl.col("rating") <= 3).then(0).otherwise(1))
    train = train.with_columns(rank=pl.lit(1), count=pl.lit(1))  # names that a user's column may have
    capped = splitting.select_part(train, {"cap": 40, "seed": 3}, "t")
    assert dict(capped["label_t"].value_counts().iter_rows()) == {0: 40, 1: 40}
    shuffled = splitting.select_part(train.sample(fraction=1, shuffle=True, seed=9), {"cap": 40, "seed": 3}, "t")
    assert set(shuffled["review_id"]) == set(capped["review_id"])
    other = splitting.select_part(train, {"cap": 40, "seed": 4}, "t")
    assert set(other["review_id"]) != set(capped["review_id"])
    both = splitting.select_part(train, {"where": {"condition": ["Pain"]}, "cap": 5, "seed": 3}, "t")
    assert set(both["condition"]) == {"Pain"} and both.height == 10


def test_labels():
    frame = pl.DataFrame({"rating": range(1, 11), "condition": ["a", "b", "b", None, "c", "c", "c", "a", "z", "b"]})
    of = lambda label, names: frame.select(x=labels.label_expression(label, names, frame.schema))["x"].to_list()  # noqa: E731
    assert of({"label": "rating"}, list(range(1, 11))) == list(range(10))
    assert of({"label": "sentiment"}, list(labels.SENTIMENTS)) == [0, 0, 0, 0, 1, 1, 2, 2, 2, 2]
    names = labels.label_map(frame, {"label": "condition", "top": 2})
    assert names == ["b", "c"]
    assert of({"label": "condition"}, names) == [None, 0, 0, None, 1, 1, 1, None, None, 0]
    with pytest.raises(Failure, match="found 9, expected at most 4, the conditions of train"):
        labels.label_map(frame, {"label": "condition", "top": 9})


def test_shards_are_equal_disjoint_and_whole():
    train = splitting.split(table(), {"mode": "official-clean", "valid": 0.2}, 5)[0]["train"]
    shards = [splitting.select_part(train, {"shard": i, "of": 7, "seed": 3}) for i in range(7)]
    groups = [set(s["group"]) for s in shards]
    assert sum(map(len, groups)) == len(set.union(*groups)) == train["group"].n_unique()
    assert max(map(len, groups)) - min(map(len, groups)) <= 1
    assert sum(s.height for s in shards) == train.height
    pain = splitting.select_part(train, {"where": {"condition": ["Pain"]}})
    assert set(pain["condition"]) == {"Pain"}
    with pytest.raises(Failure, match=r"where\.condition: no train review has 'Gout'.*'Pain', 'Acne'"):
        splitting.select_part(train, {"where": {"condition": ["Gout"]}})


# ── The scripts by hand ──


def clean_by_hand(tmp_path, train, test, ok=True):
    out = tmp_path / "out"
    arguments = ["--train", train, "--test", test, "--reviews", out / "reviews.parquet"]
    printed = run_script(
        "clean_reviews", *arguments, "--rejected", out / "rejected.parquet", "--quality", out / "quality.json", ok=ok
    )
    return out, printed


def split_by_hand(out, *, valid=0.2, ok=True):
    how = json.dumps({"mode": "official-clean", "valid": valid})
    return run_script(
        "split_reviews", "--reviews", out / "reviews.parquet", "--split", how, "--seed", 1, "--output", out, ok=ok
    )


def label_by_hand(out, ok=True):
    return run_script("label_reviews", "--data", out, "--task", '{"name": "t", "label": "rating"}', ok=ok)


def rows_of(ratings, start=0, text="review"):
    return "".join(
        f'{start + i}\tD\tPain\t"""{text} {start + i}"""\t{r}.0\tMay 20, 2012\t0\r\n' for i, r in enumerate(ratings)
    )


def test_scripts_write_what_the_design_names(tmp_path):
    (tmp_path / "a.tsv").write_text(HEADER + rows_of([*range(1, 11)] * 30), newline="")
    (tmp_path / "b.tsv").write_text(HEADER + rows_of([*range(1, 11)] * 5, start=900, text="test"), newline="")
    out, _ = clean_by_hand(tmp_path, tmp_path / "a.tsv", tmp_path / "b.tsv")
    split_by_hand(out)
    label_by_hand(out)
    found = {p.name for p in out.rglob("*") if p.is_file()}
    assert found == {
        "reviews.parquet",
        "rejected.parquet",
        "quality.json",
        "train.parquet",
        "valid.parquet",
        "test.parquet",
        "split.json",
        "labels.parquet",
        "task.json",
    }
    facts = labelled.task_facts(out, "t")
    assert facts["names"] == [str(r) for r in range(1, 11)]
    assert facts["counts"]["test"] == [5] * 10
    for split in ("train", "valid", "test"):
        rows = labelled.with_labels(out, split, "t")
        assert rows.select(pl.exclude("label_t")).equals(pl.read_parquet(out / f"{split}.parquet"))
        assert rows["label_t"].to_list() == [r - 1 for r in rows["rating"]]


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (rows_of([1, 2]), "", "b.tsv: none of 0 rows is usable"),
        (rows_of([1, 2]), rows_of([3]), r"b.tsv: id 0 is in both files (train line 2, test line 2)"),
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
        ([*range(1, 11)] * 30, None, "test.parquet: no test review is left: of 300, 300 are also in the train file"),
        ([1], [2] * 10, "train.parquet: no review is left of 1"),
        ([1, 2] * 50, [*range(1, 11)], "train.parquet: task 't' has no review of class 3, 4, 5, 6, 7, 8, 9, 10 among"),
        ([*range(1, 11)] * 30 + [1] * 1000, [1] * 50, "test.parquet: task 't' has no review of class 2,"),
    ],
)
def test_split_and_label_reviews_say_what_is_wrong_and_write_nothing(tmp_path, train, test, message):
    (tmp_path / "a.tsv").write_text(HEADER + rows_of(train), newline="")
    same = rows_of(train).replace('"""review', '"""Review')
    second = "".join(
        f"{5000 + i}\t" + line.split("\t", 1)[1] + "\r\n" for i, line in enumerate(same.split("\r\n")[:-1])
    )
    (tmp_path / "b.tsv").write_text(HEADER + (second if test is None else rows_of(test, 5000, "test")), newline="")
    out, _ = clean_by_hand(tmp_path, tmp_path / "a.tsv", tmp_path / "b.tsv")
    before = {p.name for p in out.iterdir()}
    if "task" in message:
        split_by_hand(out)
        before |= {"train.parquet", "valid.parquet", "test.parquet", "split.json"}
        printed = label_by_hand(out, ok=False)
    else:
        printed = split_by_hand(out, ok=False)
    assert message in printed.splitlines()[-1]
    assert {p.name for p in out.iterdir()} == before


def test_a_class_absent_from_validation_is_named(tmp_path):
    (tmp_path / "a.tsv").write_text(HEADER + rows_of([*range(1, 10)] * 100 + [10]), newline="")
    (tmp_path / "b.tsv").write_text(HEADER + rows_of([*range(1, 11)] * 5, start=5000, text="test"), newline="")
    out, _ = clean_by_hand(tmp_path, tmp_path / "a.tsv", tmp_path / "b.tsv")
    split_by_hand(out)
    printed = label_by_hand(out, ok=False)
    assert "valid.parquet: task 't' has no review of class 10 among" in printed
    assert "split.valid" in printed
