"""Test records that jobs write for others: written, read back, refused if damaged or of another version."""

import json

import polars as pl
import pytest

from mllm.core.errors import Failure
from mllm.evaluation import result_tables
from mllm.evaluation.score_files import Scores
from mllm.models import cards
from mllm.prediction.costs import Cost

SCORES = Scores(
    candidate="a", kind="expert", method="", task="t", members=[], parameters={"density": 0.5}, priors={}, recall={},
    scores={"test": {"accuracy": {"value": 0.5, "low": 0.4, "high": None}}}, calibrated={}, tuned={}, offsets={}, confusion={"test": [[1.5, 0]]},
    reliability={}, counts={"test": {"reviews": 3, "texts": 2}}, slices=[],
)  # fmt: skip
RECORDS = [Cost(reviews=3, n_parameters=5, device="cpu"), Cost(reviews=3), SCORES]


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: type(r).__name__)
def test_records_are_read_as_they_were_written(tmp_path, record):
    record.write(tmp_path / "a.json")
    assert type(record).read(tmp_path / "a.json") == record


@pytest.mark.parametrize("record", RECORDS[1:], ids=lambda r: type(r).__name__)
def test_other_versions_and_damage_are_refused_in_one_message(tmp_path, record):
    path = tmp_path / "a.json"
    good = record.to_json()
    first = next(name for name in good if name != "version")
    for found, said in (
        ({k: v for k, v in good.items() if k != "version"}, f"record of another version \\(found None, expected {record.VERSION}\\)"),
        ({**good, "version": record.VERSION + 1}, f"found {record.VERSION + 1}, expected {record.VERSION}"),
        ([], "found None"),
        ({k: v for k, v in good.items() if k != first}, f"damaged record \\(found no {first}\\)"),
        ({**good, "quality": 1}, "found an unknown quality"),
        ({**good, first: [{}]}, f"{first}: found \\[{{}}\\]"),
    ):  # fmt: skip
        path.write_text(json.dumps(found))
        with pytest.raises(Failure, match=said) as error:
            type(record).read(path)
        made_whole = tmp_path if record.WHOLE else path
        assert str(error.value).endswith(f"Fix: delete {made_whole} and rerun the same command")
    path.write_text("{")
    with pytest.raises(Failure, match="not valid JSON"):
        type(record).read(path)


def test_damage_is_told_with_its_place(tmp_path):
    damaged = SCORES.to_json()
    damaged["scores"]["test"] = {"accuracy": {"value": "high"}}
    (tmp_path / "a.json").write_text(json.dumps(damaged))
    with pytest.raises(Failure, match=r"scores\.test\.accuracy\.value: found 'high', expected float"):
        Scores.read(tmp_path / "a.json")


def test_tables_of_other_versions_and_damaged_ones_are_refused(tmp_path):
    table, schema = pl.DataFrame({"task": ["t"], "p": [0.5]}), {"task": str, "p": float}
    result_tables.write(table, tmp_path, "comparisons")
    assert result_tables.read(tmp_path, "comparisons", schema).equals(table)
    assert (tmp_path / "comparisons.csv").read_text() == "task,p\nt,0.5\n"
    path = tmp_path / "comparisons.parquet"
    fix = "Fix: delete .*comparisons.parquet and rerun its experiment"
    with pytest.raises(Failure, match=rf"damaged table \(wrong or missing: holds, p\)\. {fix}"):
        result_tables.read(tmp_path, "comparisons", {"task": str, "p": int, "holds": str})
    table.write_parquet(path)
    with pytest.raises(
        Failure, match=rf"table of another version \(found none, expected {result_tables.VERSION}\)\. {fix}"
    ):
        result_tables.read(tmp_path, "comparisons")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(Failure, match=rf"not valid Parquet .*{fix}"):
        result_tables.read(tmp_path, "comparisons")
    path.unlink()
    with pytest.raises(Failure, match=r"no such file\. Fix: run the experiment"):
        result_tables.read(tmp_path, "comparisons")


def test_cards_are_read_by_their_kind(tmp_path):
    asked = {"family": "classifier", "model": {"name": "small"}, "task": "t"}
    for card in (
        cards.Base(**asked, seed=3),
        cards.Published(**asked, source={"name": "theirs"}, parents={"base": "1f"}),
        cards.Merge(**asked, recipe={"method": "linear"}, dtype="float32", weights="2e", parents={}, device="cpu"),
    ):
        card.write(tmp_path / cards.FILE)
        assert cards.read(tmp_path) == card and card.asked() == asked
    assert [cards.Base(**asked, seed=3).train_seconds, cards.read(tmp_path).train_seconds] == [0, 0]
    older = {k: v for k, v in card.to_json().items() if k != "version"}
    for found, said in (
        (older, "record of another version \\(found None, expected 1\\)"),
        ({**card.to_json(), "kind": "expert"}, "not a card of this project \\(found kind expert, expected base, fine_tuned"),
        ([], "found kind None"),
        ({**card.to_json(), "recipe": "linear"}, "damaged record \\(recipe: found 'linear', expected dict"),
    ):  # fmt: skip
        (tmp_path / cards.FILE).write_text(json.dumps(found))
        with pytest.raises(Failure, match=f"{said}.*Fix: delete {tmp_path} and rerun"):
            cards.read(tmp_path)
