"""Run a few rows of the table of edits: untouched results keep their bytes, renamed ones are reused."""

import copy

import pytest
import yaml

from conftest import fresh

ROWS = "".join(
    f"{word} number {i} was {'good and helped' if stars > 3 else 'bad and hurt'},{stars},{kind},{i % 7}\n"
    for i in range(60)
    for stars, kind, word in ((5, "x", "pill"), (1, "x", "tablet"), (4, "y", "cream"), (2, "y", "gel"))
)
EXPERIMENT = {
    "name": "real",
    "data": {"source": "local", "train": "reviews.csv", "columns": {"review": "text", "stars": "stars", "kind": "kind"}},
    "split": {"mode": "random", "valid": 0.2, "test": 0.2},
    "tasks": [{"name": "mood", "column": "stars", "classes": {"bad": [1, 2], "good": [4, 5]}}],
    "models": [{
        "name": "tiny", "source": "scratch", "architecture": "gpt2", "width": 16, "layers": 1, "heads": 2,
        "vocabulary": 300, "max_length": 32,
    }],
    "base": "tiny",
    "experts": [
        {"name": "m", "parts": 2, "steps": 3, "batch_size": 8},
        {"name": "x", "where": {"kind": ["x"]}, "steps": 3, "batch_size": 8},
    ],
    "merges": [
        {"method": "linear", "members": ["m-*"]},
        {"method": "ties", "members": ["m-*", "x"], "density": 0.5},
    ],
    "references": [{"name": "majority", "model": "majority"}],
    "keep": "none",
}  # fmt: skip


def state(folder):
    """Map each trained, merged or predicted file to its (time, content)."""
    results = folder / "results/real"
    patterns = ("models/*/*", "predictions/*.*", "merges/*/*", "data/tasks/*/*")
    files = [f for pattern in patterns for f in results.glob(pattern) if f.is_file()]
    return {f.relative_to(results).as_posix(): (f.stat().st_mtime_ns, f.read_bytes()) for f in files}


@pytest.mark.long
def test_what_an_edit_does_not_touch_keeps_its_bytes(tmp_path):
    made = fresh(tmp_path / "project")
    results = made.folder / "results/real"
    (made.folder / "reviews.csv").write_text(f"text,stars,kind,more\n{ROWS}")

    def run(experiment, target):
        (made.folder / "real.yaml").write_text(yaml.safe_dump(experiment, sort_keys=False))
        made.snakemake(target, "--configfile", "real.yaml")
        return state(made.folder)

    before = run(EXPERIMENT, "predictions")

    # Another column and expert; another expert renamed, which is no member of the first merge.
    changed = copy.deepcopy(EXPERIMENT)
    changed["data"]["columns"]["more"] = "more"
    changed["experts"][1]["name"] = "z"
    changed["merges"][1]["members"] = ["m-*", "z"]
    changed["experts"].append({"name": "y", "where": {"more": [3]}, "steps": 3, "batch_size": 8})
    after = run(changed, "predictions")
    assert {name: after.get(name) for name in before} == before
    predicted = {name.removeprefix("predictions/") for name in after.keys() - before.keys() if name.endswith("parquet")}
    (ties,) = (name.removesuffix(".parquet") for name in predicted if name.startswith("ties-"))
    assert predicted == {"y.parquet", "z.parquet", f"{ties}.parquet", "router-mood.parquet"}
    (old,) = (name.split("/")[1] for name in before if name.startswith("merges/ties-") and name.endswith("merge.json"))
    for new, same in (("z", "x"), (ties, old)):
        assert f"copied the finished predictions of {same}, " in (results / f"logs/predict/{new}.log").read_text()
        assert after[f"predictions/{new}.parquet"][1] == after[f"predictions/{same}.parquet"][1]
    assert "copied the finished training of x, " in (results / "logs/train_expert/z.log").read_text()

    # Kept weights are remade, and nothing is predicted from them.
    last = run(changed | {"keep": "all"}, "merges")
    assert {name: last[name] for name in after if not name.startswith("merges/")} == {
        name: value for name, value in after.items() if not name.startswith("merges/")
    }
    assert len([*results.glob("merges/*/model")]) == 2
