"""Test what a run says about the data: from the files' headers before it, and in numbers at its end."""

import pytest

from mllm.core.errors import Failure
from mllm.core.files import write_json
from mllm.data.first_look import look
from mllm.execution.data_notes import data_notes


def test_a_wrong_column_is_found_before_any_job(project):
    (project.folder / "data").mkdir()
    for name in ("Train", "Test"):
        (project.folder / f"data/drugsCom{name}_raw.tsv").write_text("text\tstars\ngood\t5\n")
    said = project.snakemake("-n", "--configfile", "config/local.yaml", ok=False)
    assert "error: data/drugsComTrain_raw.tsv, line 1: no column " in said and "(found 'text', 'stars'" in said
    assert "Traceback" not in said and "common.smk" not in said


CSV = "text,stars,kind,condition\n" + "".join(
    f"fine &amp; good,{stars},{kind},{condition}\n"
    for stars, kind, condition in ((5, " x ", "Pain"), ("4.0", "y&amp;z", "ibromyalgia"), (1, "x", "Acne"))
)
COLUMNS = {"review": ["text"], "stars": ["stars"], "kind": ["kind"], "condition": ["condition"]}


@pytest.mark.parametrize(
    "where",
    [{"kind": ["x", "y&z"]}, {"stars": [4, 5]}, {"stars": ["5"]}, {"condition": ["Fibromyalgia", "Acne"]}, {"kind": ["x"], "stars": [1]}],
)  # fmt: skip
def test_a_slice_with_reviews_is_none_of_its_business(tmp_path, where):
    (tmp_path / "r.csv").write_text(CSV)
    look([tmp_path / "r.csv"], COLUMNS, True, {"e": where})


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"kind": ["x", "Z"]}, "experts: e: where.kind: no review has 'Z'; the most frequent are 'x', 'y&z'"),
        ({"stars": [2]}, "experts: e: where.stars: no review has 2; the most frequent are "),
        ({"condition": ["Pian"]}, "experts: e: where.condition: no review has 'Pian'"),
    ],
)
def test_a_slice_without_reviews_is_found_before_any_job(tmp_path, where, message):
    (tmp_path / "r.csv").write_text(CSV)
    with pytest.raises(Failure, match=message):
        look([tmp_path / "r.csv"], COLUMNS, True, {"e": where})
    look([tmp_path / "r.csv", tmp_path / "absent.csv"], COLUMNS, True, {"e": where})  # it may be there
    (tmp_path / "r.csv").write_text(CSV + "a, b,1,x,Pain\n")
    with pytest.raises(Failure, match="line 5: found 5 fields"):
        look([tmp_path / "r.csv"], COLUMNS, True, {"e": where})


def test_classes_and_slices_without_reviews_are_found_together(tmp_path):
    (tmp_path / "r.csv").write_text(CSV)
    classes = {"mood": ("kind", {"one": ["x"], "other": ["y&z", "w"]}), "star": ("stars", {"few": [1], "many": [4, 5]})}
    with pytest.raises(Failure) as failure:
        look([tmp_path / "r.csv"], COLUMNS, True, {"e": {"stars": [3]}}, classes)
    assert str(failure.value).splitlines() == [
        "experts: e: where.stars: no review has 3; the most frequent are '1', '4.0', '5'",
        "tasks: mood: class 'other': no review has 'w'; the most frequent are 'x', 'y&z'",
    ]


def test_the_end_counts_rejected_unlabelled_and_cut(tmp_path):
    assert data_notes(tmp_path) == []
    write_json(tmp_path / "data/quality.json", {
        "reviews": 90, "train": {"rows": 80, "rejected": {"empty review": 7}}, "test": {"rows": 20, "rejected": {"empty review": 2, "no rating": 1}},
    })  # fmt: skip
    write_json(
        tmp_path / "data/tasks/mood/task.json",
        {"counts": {"train": [30, 40]}, "unlabelled": {"train": 20}},
    )
    for name, number in (("a", 5), ("b", 5), ("c", 0)):
        write_json(tmp_path / f"predictions/{name}.cost.json", {"cut_reviews": number, "reviews": 50})
    assert data_notes(tmp_path) == [
        f"Rows rejected: 10 of 100 (9 empty review, 1 no rating); see {tmp_path}/data/rejected.parquet",
        "Reviews without a label for mood: 20 of 90; they are left out",
        "Texts cut to a model's max_length: 5 of 50 (by a)",
    ]
