"""Test any number of tables and experiment files, valid and nearly valid (`make net`): no traceback, no wrong count."""

import contextlib
import copy
import csv
import os

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import ROOT
from mllm.core.errors import Failure
from mllm.data import cleaning, raw_files
from mllm.experiment import grid, load, yaml_files

TIMES = int(os.environ.get("MLLM_NET", 1))
CAST = settings(
    max_examples=40 * TIMES, deadline=None, derandomize=TIMES == 1,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
TEXTS = st.text(st.sampled_from("abz 5.,;\t\"'\n\r<&好ठीé😀\u200d"), min_size=0, max_size=25)
DATES = st.sampled_from(["", "2012-05-20", "04/05/2012", "20/05/2012", "05/20/2012", "May 4, 2012", "4.5.2012", "soon"])
ROWS = st.lists(st.tuples(TEXTS, st.sampled_from(["1", "9.0", "10", "11", "x", ""]), DATES), min_size=1, max_size=30)
COLUMNS = {"id": ["id"], "review": ["text"], "rating": ["stars"], "date": ["day"]}


@CAST
@given(
    rows=ROWS, delimiter=st.sampled_from("\t,;"), quoting=st.sampled_from(["csv", "all", "plain"]), end=st.sampled_from(["\n", "\r\n"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "latin-1"]), ids=st.sampled_from(["1", "01", "a"]),
)  # fmt: skip
def test_any_table_is_read_whole_or_refused(tmp_path, rows, delimiter, quoting, end, encoding, ids):
    named = [(f"{ids}{i}" if ids == "a" else str(int(ids) * i + 100), *row) for i, row in enumerate(rows)]
    file = tmp_path / "t[1].csv"
    plain = str.maketrans("\r\n" + delimiter, "   ")
    with file.open("w", encoding=encoding, errors="ignore", newline="") as stream:
        if quoting == "plain":
            named = [(i, text.translate(plain), *more) for i, text, *more in named]
            stream.write(end.join(delimiter.join(row) for row in [("id", "text", "stars", "day"), *named]) + end)
        else:
            how = csv.QUOTE_ALL if quoting == "all" else csv.QUOTE_MINIMAL
            csv.writer(stream, delimiter=delimiter, lineterminator=end, quoting=how).writerows(
                [("id", "text", "stars", "day"), *named]
            )
    for quotes in (False,) if quoting == "plain" else (True,):
        try:
            raw = raw_files.read_raw(file, COLUMNS, quotes=quotes)
            kept, rejected, counts = cleaning.clean(raw, "train", repairs="auto")
        except Failure as refused:
            assert str(file) in str(refused) or "data.train" in str(refused)
            assert "Fix" in str(refused) or encoding not in ("utf-8", "utf-8-sig")
            continue
        assert raw.height == len(rows) == kept.height + rejected.height == counts["rows"]
        if encoding in ("utf-8", "utf-8-sig"):
            assert raw["review"].to_list() == [row[1] for row in named]
            assert raw["date"].to_list() == [row[3] for row in named]
    if quoting == "plain":  # read by mistake as if it were quoted: all rows, or an error
        with contextlib.suppress(Failure):
            assert raw_files.read_raw(file, COLUMNS).height == len(rows)


def places(node, path=()):
    """Return the paths of all values of a file."""
    found = [path] if path else []
    inside = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return found + [p for key, value in inside for p in places(value, (*path, key))]


FILES = {
    p.name: yaml_files.read_yaml(p)
    for p in sorted((ROOT / "config").glob("*.yaml"))
    if not p.name.endswith(".lock.yaml")
}
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 40), st.floats(allow_nan=True), st.text(st.sampled_from("a*?[{}$;' 1é"), max_size=6),
    st.just([]), st.just({}), st.sampled_from([["shard-?"], {"layers": [1]}, {1: [1]}, [[1]], ["*"]]),
)  # fmt: skip


@CAST
@given(data=st.data())
def test_any_experiment_file_is_taken_or_refused_in_words(data):
    raw = copy.deepcopy(FILES[data.draw(st.sampled_from(sorted(FILES)))])
    for _ in range(data.draw(st.integers(1, 3))):
        *path, last = data.draw(st.sampled_from(places(raw)))
        node = raw
        for step in path:
            node = node[step]
        what = data.draw(st.sampled_from(["replace", "remove", "rename"]))
        if what == "replace":
            node[last] = data.draw(VALUES)
        elif what == "rename" and isinstance(node, dict):
            node[data.draw(st.sampled_from([f"{last}s", 1, True, "", "a b"]))] = node.pop(last)
        else:
            del node[last]
    written = yaml.safe_load(yaml.safe_dump(raw))
    try:
        experiment = load.parse(written)
        grid.build(experiment)
    except yaml_files.ExperimentError as refused:
        assert all(problem.strip() for problem in refused.problems)
