"""Compare statistics of texts with plain Python, and check the figures as files that people can open."""

import json
import re
import xml.etree.ElementTree as ElementTree

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import BertWordPieceTokenizer, Tokenizer, models, trainers
from tokenizers.processors import BertProcessing

from conftest import run_script
from mllm.core.files import write_json
from mllm.data import raw_files, text_statistics
from mllm.models.scratch import train_tokenizer

TEXTS = [
    "It works. It does NOT hurt me!! I can't believe it... Never again? 10/10",
    "ok",
    "No no NO, nothing helps :( … without it I wouldn’t sleep.",
    "Naïve café — 3.5 mg daily. Ça va!",
    "one\n\ntwo\tthree",
]


def by_hand(text: str) -> dict[str, float]:
    """Compute text_statistics.STATISTICS with Python's own string methods, as far as these go."""
    words = text.split()
    letters = [c for c in text if c.isalpha()]
    strokes = len(letters) + sum(c.isdecimal() for c in text)
    sentences = max(1, len(re.findall(r"[.!?…]+[\"'”’)]*(?=\s|$)", text)))
    index = 4.71 * strokes / max(1, len(words)) + 0.5 * max(1, len(words)) / sentences - 21.43
    return {
        "characters": len(text), "words": len(words), "sentences": sentences, "exclamations": text.count("!"),
        "capitals": sum(c.isupper() for c in letters) / max(1, len(letters)), "readability": index,
    }  # fmt: skip


def found(texts: list[str]) -> pl.DataFrame:
    return text_statistics.statistics(pl.Series(texts))


def test_statistics_are_those_of_plain_python():
    rows = found(TEXTS).to_dicts()
    for text, row in zip(TEXTS, rows, strict=True):
        for name, value in by_hand(text).items():
            assert row[name] == pytest.approx(value, abs=0.006), (text, name)
    assert [r["negations"] for r in rows] == [3, 0, 6, 0, 0]
    assert [r["emphasis"] for r in rows] == [2, 0, 2, 0, 0]
    # Senter and Smith's formula by hand: 4 words, 17 letters, 2 sentences.
    assert found(["This works. Does that."])["readability"][0] == pytest.approx(
        4.71 * 17 / 4 + 0.5 * 2 - 21.43, abs=0.006
    )


plain = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1, max_size=80)


@settings(max_examples=200, deadline=None)
@given(plain)
def test_any_text_has_statistics(text):
    (row,) = found([text]).to_dicts()
    for name, value in by_hand(text).items():
        assert row[name] == pytest.approx(value, abs=0.006), name


def exact(folder, texts: list[str]) -> list[int]:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    return [len(tokenizer.encode(t).ids) for t in texts]


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    """Make tokenizers of GPT-2's kind, of BERT's kind with special tokens, and one whose words may cross spaces."""
    folder = tmp_path_factory.mktemp("tokenizers")
    train_tokenizer(TEXTS * 3, 300, 4).save_pretrained(folder / "gpt2")  # cuts at four
    bert = BertWordPieceTokenizer()
    bert.train_from_iterator(TEXTS * 3, vocab_size=120, show_progress=False)
    bert.post_processor = BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    whole = Tokenizer(models.BPE())
    whole.train_from_iterator(TEXTS * 3, trainers.BpeTrainer(vocab_size=200, show_progress=False))
    for name, tokenizer in (("bert", bert), ("whole", whole)):
        (folder / name).mkdir()
        tokenizer.save(str(folder / name / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("kind", ["gpt2", "bert", "whole"])
def test_tokens_are_the_tokenizer_s_own_and_uncut(tokenizers, kind):
    texts = [*TEXTS, "two  spaces", "a \n b", "tab\there", "nb\u00a0space x", "don't you're 10mg/day", "a" * 50 + " b"]
    expected = exact(tokenizers / kind, texts)
    assert max(expected) > 4
    assert text_statistics.token_counts(pl.Series(texts), tokenizers / kind).to_list() == expected


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(st.sampled_from("ab'1.! \t\n\u00a0éß日"), min_size=1, max_size=40), min_size=1, max_size=5))
def test_words_apart_have_the_tokens_of_the_whole(tokenizers, texts):
    for kind in ("gpt2", "bert"):
        assert text_statistics.token_counts(pl.Series(texts), tokenizers / kind).to_list() == exact(
            tokenizers / kind, texts
        )


def test_tokens_of_real_rows(real_rows, tokenizers):
    texts = raw_files.read_raw(real_rows / "drugsComTest_raw.tsv")["review"].head(1500)
    found = text_statistics.token_counts(texts, tokenizers / "gpt2").to_list()
    assert found == exact(tokenizers / "gpt2", texts.to_list())


def test_the_script_on_real_rows(real_rows, tmp_path):
    """Compare counts with an independent computation, and check that figures have the format of their names."""
    data, figures = tmp_path / "data", tmp_path / "figures"
    files = [real_rows / f"drugsCom{n}_raw.tsv" for n in ("Train", "Test")]
    run_script(
        "clean_reviews", "--train", files[0], "--test", files[1], "--reviews", data / "reviews.parquet",
        "--rejected", data / "rejected.parquet", "--quality", data / "quality.json",
    )  # fmt: skip
    how = json.dumps({"mode": "official-clean", "valid": 0.1})
    run_script("split_reviews", "--reviews", data / "reviews.parquet", "--split", how, "--seed", 1, "--output", data)
    run_script("describe_reviews", "--data", data, "--statistics", data / "statistics.parquet", "--figures", figures)

    parts = {n: pl.read_parquet(data / f"{n}.parquet") for n in ("train", "valid", "test")}
    texts = {n: {" ".join(t.lower().split()) for t in part["review"]} for n, part in parts.items()}
    assert not texts["train"] & texts["valid"] and not (texts["train"] | texts["valid"]) & texts["test"]
    repairs = pl.read_csv(data / "repairs.csv")
    leak = repairs.filter(pl.col("what").str.contains("also in the train"))["rows"].item()
    everything = pl.read_parquet(data / "reviews.parquet")
    by_file = {f: everything.filter(pl.col("file") == f)["review"].to_list() for f in ("train", "test")}
    in_train = {" ".join(t.lower().split()) for t in by_file["train"]}
    assert leak == sum(" ".join(t.lower().split()) in in_train for t in by_file["test"]) > 0
    assert parts["test"].height == len(by_file["test"]) - leak

    summary = pl.read_csv(data / "summary.csv").filter(pl.col("column") == "words")
    for split, mean in summary.filter(pl.col("split") != "left out").select("split", "mean").rows():
        lengths = [len(t.split()) for t in parts[split]["review"]]
        assert mean == pytest.approx(sum(lengths) / len(lengths), abs=1e-3)
    statistics = pl.read_parquet(data / "statistics.parquet")
    assert statistics["review_id"].to_list() == everything["review_id"].to_list()

    names = {"ratings", "words", "useful_counts", "top_drugs", "top_conditions", "years", "leak_and_repairs"}
    assert {p.name for p in figures.iterdir()} == {f"{n}.{k}" for n in names for k in ("svg", "png")} | {"index.html"}
    for name in names:
        assert ElementTree.parse(figures / f"{name}.svg").getroot().tag.endswith("svg")
        assert (figures / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert ">Birth Control<" in (figures / "top_conditions.svg").read_text()
    page = (figures / "index.html").read_text()
    assert not re.search(r"<(?:script[^>]+src|link[^>]+href)=", page)  # opening it downloads nothing


def test_a_table_of_texts_alone_is_described_too(tmp_path):
    """Without ratings, drugs, conditions or dates, only the columns that exist are drawn."""
    (tmp_path / "a.csv").write_text(
        "text,mood\n" + "".join(f'"Number {i} is {w}",{w}\n' for i in range(60) for w in ("good", "bad"))
    )
    data = tmp_path / "data"
    columns = json.dumps({"review": ["text"], "mood": ["mood"]})
    run_script(
        "clean_reviews", "--train", tmp_path / "a.csv", "--columns", columns, "--reviews", data / "reviews.parquet",
        "--rejected", data / "rejected.parquet", "--quality", data / "quality.json",
    )  # fmt: skip
    task = json.dumps({"name": "mood", "column": "mood", "classes": {"bad": ["bad"], "good": ["good"]}})
    how = json.dumps({"mode": "random", "valid": 0.2, "test": None})
    run_script("split_reviews", "--reviews", data / "reviews.parquet", "--split", how, "--seed", 1, "--stratum", task, "--output", data)  # fmt: skip
    run_script("label_reviews", "--data", data, "--task", task)
    facts = json.loads((data / "tasks/mood/task.json").read_text())
    assert facts["counts"]["test"] == [15, 15]
    write_json(tmp_path / "before.json", facts)
    run_script("describe_reviews", "--data", data, "--statistics", data / "s.parquet", "--figures", tmp_path / "f")
    assert {p.stem for p in (tmp_path / "f").iterdir()} == {"words", "index"}
