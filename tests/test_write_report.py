"""What the report's folder holds, without a browser: figures, tables, provenance, many candidates, strange names."""

import json
import re
import shutil

import polars as pl
import pytest

from conftest import Project
from mllm.core.chart_style import styled
from mllm.evaluation import result_tables
from mllm.experiment import load
from mllm.reporting import charts, page, paper_files, provenance


@pytest.fixture
def made(demo):
    return demo.folder / "results/demo/report"


def test_figures_and_tables_for_papers(demo, made):
    drawn = {ending: {f.stem for f in (made / "figures").glob(f"*.{ending}")} for ending in ("svg", "png", "csv")}
    assert drawn["svg"] == drawn["png"] == drawn["csv"] and len(drawn["svg"]) > 10
    assert {"pareto-0", "grids-0-ties", "training"} <= drawn["svg"]
    board = pl.read_parquet(demo.folder / "results/demo/leaderboard.parquet")
    assert len((made / "leaderboard.md").read_text().splitlines()) == board.height + 2
    assert (made / "leaderboard.tex").read_text().count("\\\\") == board.height + 1
    pareto = pl.read_csv(made / "figures/pareto-0.csv")
    joined = pareto.join(board, on="candidate")
    assert joined.height == pareto.height and (joined["value"] - joined["test_macro_f1"]).abs().max() < 1e-9
    training = pl.read_csv(made / "figures/training.csv")
    assert set(training["on"]) == {"train", "validation"}
    claims = pl.read_parquet(demo.folder / "results/demo/comparisons.parquet").filter("claim")
    drawn = pl.concat([pl.read_csv(f) for f in (made / "figures").glob("differences-0-*.csv")], how="diagonal_relaxed")
    assert sorted(drawn["difference"].round(9)) == sorted(claims["difference"].round(9))


def test_one_claim_is_drawn_with_its_numbers(demo, tmp_path):
    """Beside lines to read it by, which are as many."""
    claims = pl.read_parquet(demo.folder / "results/demo/comparisons.parquet").filter("claim").head(1)
    spec = styled(charts.forest(claims.with_columns(method=pl.lit("ties")), 0.01)).to_dict()
    paper_files.write_chart(spec, tmp_path / "one")
    (row,) = pl.read_csv(tmp_path / "one.csv").to_dicts()
    assert row["method"] == "ties" and row["difference"] == pytest.approx(claims["difference"][0])


@pytest.mark.parametrize(("metric", "best"), [("macro_f1", [0.6, 0.8]), ("nll", [0.5, 0.7])])
def test_a_heat_map_shows_the_best_of_what_it_hides(metric, best):
    """Two seeds at each of the points: the better is the smaller, where smaller is better."""
    points = [(0.1, 0, 0.5), (0.1, 1, 0.6), (0.2, 0, 0.7), (0.2, 1, 0.8)]
    board = pl.DataFrame(
        {"candidate": f"{d}-{s}-{r}", "kind": "merge", "method": "dare", "members": "a b", "recipe": json.dumps({"density": d, "rescale": r, "seed": s}), "density": d, "rescale": r, "seed": s,
         "winner": False, **{f"valid_{metric}{end}": v for end in ("", "_low", "_high")}}
        for d, s, v in points for r in (0, 1)
    )  # fmt: skip
    board = board.with_columns(seed=pl.lit(None))  # hidden behind the two that are drawn
    chart = charts.grids(board, metric)["dare"].to_dict()
    shown = chart["data"]["values"] if "data" in chart else chart["layer"][0]["data"]["values"]
    assert sorted({row["value"] for row in shown}) == best
    # The best is dark, and what is written on it white.
    colours = [layer["encoding"]["color"] for layer in chart["layer"]]
    assert colours[0]["scale"]["reverse"] is (metric == "nll")
    assert ("<" if metric == "nll" else ">") in str(colours[1]["condition"]["test"])


def test_provenance_is_snakemakes_benchmarks(demo, made):
    time = pl.read_csv(made / "tables/time.csv")
    jobs = dict(time.select("stage", "jobs").rows())
    assert jobs["train_expert"] == 3 and jobs["merge"] == 13 and jobs["score"] == 1 and "write_report" not in jobs
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
    """Two jobs of an hour: one on three GPUs, one on a CPU; and what Slurm says of them."""
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
    rows = {row["stage"]: row for row in provenance.stages(tmp_path).to_dicts()}
    assert rows["predict"] | {"stage": ""} == {
        "stage": "", "jobs": 2, "seconds": 7200.0, "GPU-hours": 3.0, "longest (s)": 3600.0, "peak GB": 1.07,
    }  # fmt: skip
    assert rows["score"]["peak GB"] == 0
    assert provenance.on_the_cluster(tmp_path) is None
    (tmp_path / "efficiency.csv").write_text(
        "rule,job,restarts,seconds,requested_minutes,peak_mb,requested_mem_mb\n"
        "merge,a,0,30,10,900,2000\nmerge,b,1,90,20,,4000\npredict,a,0,60,30,500,1000\n"
    )
    used = provenance.on_the_cluster(tmp_path)
    assert used.row(0) == ("merge", 2, 1, 1.5, 20, 900, 4000) and used.height == 2


def test_thousands_of_candidates_stay_below_8_mb(demo, tmp_path):
    project: Project = demo.copy(tmp_path / "many")
    results = project.folder / "results/demo"
    shutil.copytree(results / "models/pain", results / "models/pain-9")  # of an earlier grid
    board = pl.read_parquet(results / "leaderboard.parquet")
    merges = board.filter(kind="merge")
    last = merges.tail(1)
    added = pl.concat(
        [last.with_columns(candidate=pl.lit(f"{last['candidate'][0]}-{i:04}"), winner=False) for i in range(4000)]
    )
    recipe = (results / f"merges/{last['candidate'][0]}/mergekit.yaml").read_text() + f"# {'review ' * 2000}\n"
    for name in added["candidate"]:
        (results / f"merges/{name}").mkdir()
        (results / f"merges/{name}/mergekit.yaml").write_text(recipe)
    result_tables.write(pl.concat([board, added]), results, "leaderboard")
    experiment = load.load(project.folder / "config/demo.yaml")
    (tmp_path / "report").mkdir()
    page.write(page.Report(results, experiment), tmp_path / "report")
    html = (tmp_path / "report/index.html").read_text()
    assert len(html.encode()) < 8e6
    assert html.count("<tr data-kind=") == page.MOST
    assert "pain-9" not in html
    for winner in board.filter("winner")["candidate"]:
        assert f"<summary>{winner}</summary>" in html
    for name in board.filter(pl.col("kind") != "merge")["candidate"]:
        assert f'data-value="{name}"' in html
    assert f"{board.height + 4000 - page.MOST:,} merges further down are in leaderboard.csv alone." in html


def test_strange_text_stays_text(demo, tmp_path):
    """A review or a class may hold what HTML, scripts, Markdown or LaTeX take for their own."""
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
    page.write(page.Report(results, load.load(project.folder / "config/demo.yaml")), tmp_path / "report")
    html = (tmp_path / "report/index.html").read_text()
    assert "<script>window.bad" not in html and "<img src=x" not in html and "{{ 7 * 7 }}" in html
    assert "&lt;/script&gt;&lt;script&gt;window.bad" in html
    table = pl.DataFrame({"a": [bad], "b": ["a\\b~c^d"], "c": [1]})
    tex = paper_files.latex(table)
    assert r"\$x\_1\textasciicircum{}2\$" in tex and r"a\textbackslash{}b\textasciitilde{}c" in tex and r"\&" in tex
    row = paper_files.markdown(table).splitlines()[2]
    assert len(re.findall(r"(?<!\\)\|", row)) == table.width + 1
