"""Test the report's folder without a browser: figures, tables, provenance, many candidates, strange names."""

import json
import re
import shutil

import numpy as np
import polars as pl
import pytest

from conftest import Project
from mllm.core.chart_style import styled
from mllm.evaluation import result_tables
from mllm.evaluation.comparison_table import Comparison, rows
from mllm.execution import stage_times
from mllm.experiment import load
from mllm.reporting import curves, details, heat_map, page, paper_files, provenance, report, row_chart, task_figures


@pytest.fixture
def made(demo):
    return demo.folder / "results/demo/report"


def test_figures_and_tables_for_papers(demo, made):
    drawn = {ending: {f.stem for f in (made / "figures").glob(f"*.{ending}")} for ending in ("svg", "png", "csv")}
    assert drawn["svg"] == drawn["png"] == drawn["csv"] and len(drawn["svg"]) > 10
    assert {"answer-0", "pareto-0", "grids-0-ties", "training-acne"} <= drawn["svg"]
    board = pl.read_parquet(demo.folder / "results/demo/leaderboard.parquet")
    assert len((made / "leaderboard.md").read_text().splitlines()) == board.height + 2
    assert (made / "leaderboard.tex").read_text().count("\\\\") == board.height + 1
    pareto = pl.read_csv(made / "figures/pareto-0.csv")
    joined = pareto.join(board, on="candidate")
    assert joined.height == pareto.height > 10 and (joined["value"] - joined["test_macro_f1"]).abs().max() < 1e-9
    training = pl.read_csv(made / "figures/training-acne.csv")
    assert set(training["on"]) == {"train", "validation"}
    claims = pl.read_parquet(demo.folder / "results/demo/comparisons.parquet").filter("claim")
    drawn = pl.concat([pl.read_csv(f) for f in (made / "figures").glob("differences-0-*.csv")], how="diagonal_relaxed")
    assert sorted(drawn["value"].round(9)) == sorted(claims["difference"].round(9))


def claims_of(demo) -> list[Comparison]:
    return rows(pl.read_parquet(demo.folder / "results/demo/comparisons.parquet").filter("claim"))


def test_one_claim_is_drawn_with_its_numbers(demo, tmp_path):
    """The margin is drawn beside it."""
    claim = claims_of(demo)[0]
    chart = task_figures.differences([claim], {claim.candidate: "ties"}, 0.01)
    paper_files.write_chart(styled(chart.drawn()).to_dict(), tmp_path / "one")
    (row,) = pl.read_csv(tmp_path / "one.csv").to_dicts()
    assert row["label"] == "ties" and row["value"] == pytest.approx(claim.difference)
    assert row["colour"] == claim.answer and row["note"].startswith(f"{claim.answer}: ")


def test_the_picture_says_what_the_verdict_says(demo):
    """Each rival occurs once, in the verdict's order, with the verdict's numbers and words."""
    results = demo.folder / "results/demo"
    board = pl.read_parquet(results / "leaderboard.parquet")
    mine = [c for c in claims_of(demo) if c.candidate == board.filter("winner")["candidate"][0]]
    chart = task_figures.answer(mine, board, 0.01)
    assert len(chart.rows) == len(mine) - 1  # without the constant answer
    told = re.findall(
        r"\*\*Replace (?:the best expert, )?(\S+)\? (Yes|No|Not shown)\.\*\* .*?: (\S+ \(.*?\))",
        (results / "verdict.md").read_text(),
    )
    assert told
    for row, (name, answer, numbers) in zip(chart.rows, told, strict=False):
        assert name in row.label and row.note == f"{answer}: {numbers}".replace("-", "−")
        assert row.points[0].colour == answer


def test_places_on_the_page_are_the_numbers():
    point = row_chart.Point(value=0.0, low=-0.1, high=0.1, colour="Yes")
    chart = row_chart.RowChart(
        rows=[row_chart.Row(label="a", points=[point])], axis="x", margin=0.02, domain=(-0.2, 0.2)
    )
    drawn = chart.on_page()
    (row,) = drawn["rows"]
    assert (row["points"][0]["low"], row["points"][0]["at"], row["points"][0]["high"]) == (25, 50, 75)
    assert drawn["band"] == (45, 10) and drawn["zero"] == 50
    assert [t["text"] for t in drawn["ticks"]] == ["−0.2", "−0.1", "0.0", "0.1", "0.2"]
    assert [t["at"] for t in drawn["ticks"]] == pytest.approx([0, 25, 50, 75, 100])


def test_levels_of_confidence_keep_the_means():
    fine = [[10.0, 0.3 + 0.05 * i, 0.2 + 0.05 * i] for i in range(13)]
    found = curves.levels(fine, 130)
    assert len(found) <= curves.LEVELS and sum(count for _, _, count, _, _ in found) == 130
    for k in (0, 1):
        assert sum(level[k] * level[2] for level in found) / 130 == pytest.approx(sum(f[k + 1] for f in fine) / 13)
    assert all(low < accuracy < high for _, accuracy, _, low, high in found)


@pytest.mark.parametrize(("metric", "best"), [("macro_f1", [0.6, 0.8]), ("nll", [0.5, 0.7])])
def test_a_heat_map_shows_the_best_of_what_it_hides(metric, best):
    """Each point has two values of a third parameter: the better one is shown, the smaller if smaller is better."""
    points = [(0.1, "a", 0.5), (0.1, "b", 0.6), (0.2, "a", 0.7), (0.2, "b", 0.8)]
    board = pl.DataFrame(
        {"candidate": f"{d}-{s}-{r}", "kind": "merge", "method": "dare", "recipe": json.dumps({"density": d, "rescale": r, "sign": s}),
         "density": d, "lambda": r, "sign": s, "winner": False, "recipe_of": json.dumps({}),
         **{f"valid_{metric}{end}": v for end in ("", "_low", "_high")}}
        for d, s, v in points for r in (0, 1)
    ).with_columns(recipe=pl.lit(json.dumps({"density": 0, "lambda": 0, "sign": 0})), sign=pl.lit(None))  # fmt: skip
    chart = task_figures.grids(board, metric)["dare"]
    assert isinstance(chart, heat_map.HeatMap)
    assert sorted({cell.value for cell in chart.cells.values()}) == best
    strongest = max(chart.cells.values(), key=lambda cell: chart.strength(cell.value))
    assert strongest.value == (min if metric == "nll" else max)(best)  # the best is dark
    (cell, *_) = chart.on_page()["rows"][0]["cells"]
    assert "–" in cell["interval"]


def test_seeds_are_no_axis_of_a_grid():
    board = pl.DataFrame(
        {"candidate": f"{d}-{s}", "kind": "merge", "method": "dare", "recipe": json.dumps({"density": d, "seed": s}), "density": d, "seed": s,
         **{f"valid_accuracy{end}": d for end in ("", "_low", "_high")}}
        for d in (0.1, 0.2) for s in (1, 2)
    )  # fmt: skip
    chart = task_figures.grids(board, "accuracy")["dare"]
    assert isinstance(chart, row_chart.RowChart) and [r.label for r in chart.rows] == ["density 0.1", "density 0.2"]


def test_provenance_is_snakemakes_benchmarks(demo, made):
    time = pl.read_csv(made / "tables/time.csv")
    jobs = dict(time.select("stage", "jobs").rows())
    assert jobs["train_expert"] == 4 and jobs["merge"] == 13 and jobs["score"] == 1 and "write_report" not in jobs
    seconds = [
        float(pl.read_csv(f, separator="\t", infer_schema=False)["s"][0])
        for f in (demo.folder / "results/demo/benchmarks/train_expert").glob("*.tsv")
    ]
    hours = time.filter(stage="train_expert").row(0, named=True)
    assert hours["seconds"] == pytest.approx(sum(seconds), abs=0.1) and hours["GPU-hours"] == 0
    assert hours["longest (s)"] == pytest.approx(max(seconds), abs=0.1)
    software = dict(pl.read_csv(made / "tables/software.csv").rows())
    assert {"git commit of the report", "devices", "torch", "mergekit"} <= set(software)


def test_gpu_hours_count_gpus(tmp_path):
    """Make two jobs of an hour, one on three GPUs and one on a CPU, with Slurm's records."""
    for rule, name in (("predict", "a"), ("predict", "b")):
        file = tmp_path / f"benchmarks/{rule}/{name}.tsv"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("s\th:m:s\tmax_rss\n3600\t1:00:00\t1024\n")
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions/a.cost.json").write_text('{"device": "NVIDIA H100", "gpus": 3}')
    (tmp_path / "predictions/b.cost.json").write_text('{"device": "cpu", "gpus": 1}')
    (tmp_path / "benchmarks/score.tsv").write_text(
        "s\th:m:s\tmax_rss\n0.4\t0:00:00\tNA\n"
    )  # over before it was measured
    rows = {row["stage"]: row for row in stage_times.stages(tmp_path)}
    assert rows["predict"] | {"stage": ""} == {
        "stage": "", "jobs": 2, "seconds": 7200.0, "GPU-hours": 3.0, "longest (s)": 3600.0, "peak GB": 1.07,
    }  # fmt: skip
    assert rows["score"]["peak GB"] == 0
    assert stage_times.on_the_cluster(tmp_path) == []
    (tmp_path / "efficiency.csv").write_text(
        "rule,job,restarts,seconds,requested_minutes,peak_mb,requested_mem_mb\n"
        "merge,a,0,30,10,900,2000\nmerge,b,1,90,20,,4000\npredict,a,0,60,30,500,1000\n"
    )
    used = stage_times.on_the_cluster(tmp_path)
    assert tuple(used[0].values()) == ("merge", 2, 1, 1.5, 20, 900, 4000) and len(used) == 2
    board = pl.DataFrame(
        {"whole": [None], "candidate": ["a"], "device": ["cpu"]}, schema_overrides={"whole": pl.String}
    )
    time, cluster, _ = provenance.tables(tmp_path, stage_times.taken(tmp_path), {}, board)
    assert time["table"].height == 2 and cluster["table"].rows() == [tuple(row.values()) for row in used]


@pytest.mark.parametrize(("more", "most"), [(280, 3e6), (4000, 8e6)])
def test_the_page_of_many_candidates_stays_small(demo, tmp_path, more, most):
    """Cover 300 candidates, and thousands, with long recipes."""
    project: Project = demo.copy(tmp_path / "many")
    results = project.folder / "results/demo"
    shutil.copytree(results / "models/pain", results / "models/pain-9")  # from an earlier grid
    board = pl.read_parquet(results / "leaderboard.parquet")
    last = board.filter(kind="merge").tail(1)
    name = last["candidate"][0]
    added = pl.concat([last.with_columns(candidate=pl.lit(f"{name}-{i:04}"), winner=False) for i in range(more)])
    recipe = (results / f"merges/{name}/mergekit.yaml").read_text() + f"# {'review ' * 2000}\n"
    for other in added["candidate"][: 2 * details.MOST]:
        (results / f"merges/{other}").mkdir()
        (results / f"merges/{other}/mergekit.yaml").write_text(recipe)
        shutil.copy(results / f"scores/{name}.json", results / f"scores/{other}.json")
    index = json.loads((results / "scores/resamples-sentiment.json").read_text())
    labels = np.load(results / "scores/labels-sentiment.npy")
    place = index["candidates"].index(name)
    index["candidates"] += added["candidate"].to_list()
    (results / "scores/resamples-sentiment.json").write_text(json.dumps(index))
    np.save(results / "scores/labels-sentiment.npy", np.concatenate([labels, labels[[place] * more]]))
    result_tables.write(pl.concat([board, added]), results, "leaderboard")
    experiment = load.load(project.folder / "config/demo.yaml")
    (tmp_path / "report").mkdir()
    page.write(report.Report(results, experiment, {}), tmp_path / "report")
    html = (tmp_path / "report/index.html").read_text()
    assert len(html.encode()) < most
    assert html.count("<tr data-kind=") == min(report.MOST, board.height + more)
    assert "pain-9" not in html
    data = json.loads(re.search(r'id="details">(.*?)</script>', html, re.S)[1])["sentiment"]["candidates"]
    for winner in board.filter("winner")["candidate"]:
        assert data[winner]["recipe"] == (results / f"merges/{winner}/mergekit.yaml").read_text()
    for other in board.filter(pl.col("kind") != "merge")["candidate"]:
        assert f'data-value="{other}"' in html and data[other]["confusion"]
    rest = board.height + more - report.MOST
    assert rest < 0 or f"Only leaderboard.csv has the {rest:,} merges further down." in html


def test_strange_text_stays_text(demo, tmp_path):
    """A review or a class may contain characters with a meaning in HTML, scripts, Markdown or LaTeX."""
    project: Project = demo.copy(tmp_path / "strange")
    results = project.folder / "results/demo"
    bad = "</script><script>window.bad = 1</script><img src=x onerror=alert(1)> & | `a` $x_1^2$ {{ 7 * 7 }}"
    verdict = (results / "verdict.md").read_text()
    (results / "verdict.md").write_text(
        verdict.replace("negative", bad, 1)
    )  # a class of that name, or a table from elsewhere
    test = pl.read_parquet(results / "data/test.parquet")
    test.with_columns(review=pl.lit(bad)).write_parquet(results / "data/test.parquet")
    (tmp_path / "report").mkdir()
    page.write(report.Report(results, load.load(project.folder / "config/demo.yaml"), {}), tmp_path / "report")
    html = (tmp_path / "report/index.html").read_text()
    assert "<script>window.bad" not in html and "<img src=x" not in html and "{{ 7 * 7 }}" in html
    assert "&lt;/script&gt;&lt;script&gt;window.bad" in html
    table = pl.DataFrame({"a": [bad], "b": ["a\\b~c^d"], "c": [1]})
    tex = paper_files.latex(table)
    assert r"\$x\_1\textasciicircum{}2\$" in tex and r"a\textbackslash{}b\textasciitilde{}c" in tex and r"\&" in tex
    row = paper_files.markdown(table).splitlines()[2]
    assert len(re.findall(r"(?<!\\)\|", row)) == table.width + 1
