"""What is said about the data before a run, from the files' headers, and at its end, in numbers."""

from mllm.core.files import write_json
from mllm.execution.data_notes import data_notes


def test_a_wrong_column_is_found_before_any_job(project):
    (project.folder / "data").mkdir()
    for name in ("Train", "Test"):
        (project.folder / f"data/drugsCom{name}_raw.tsv").write_text("text\tstars\ngood\t5\n")
    said = project.snakemake("-n", "--configfile", "config/local.yaml", ok=False)
    assert "error: data/drugsComTrain_raw.tsv, line 1: no column " in said and "found 'text', 'stars'" in said
    assert "Traceback" not in said and "common.smk" not in said


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
