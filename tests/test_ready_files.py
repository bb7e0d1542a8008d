"""Test the ready experiment files for a cluster: each plans its jobs offline, and states the plan's estimate."""

import re

import pytest

from conftest import ROOT, Project

READY = ("config", "tasks", "flan-t5", "llama")


@pytest.mark.parametrize("name", READY)
def test_a_ready_file_plans_its_jobs_and_says_their_cost(name, project: Project, monkeypatch):
    """The header's figures match the estimate within a tenth; models are pinned to commits, so that no hub is asked."""
    monkeypatch.setenv("MLLM_GPUS", "1")
    file = f"config/{name}.yaml"
    text = (ROOT / file).read_text()
    said = [
        float(number)
        for number in re.search(r"^# Estimate: (\S+) GPU-hours .*?, (\d+) GB of disk", text, re.M).groups()
    ]
    printed = project.snakemake("-n", "--configfile", file)
    hours = float(re.search(r"about (\S+) GPU-hours", printed)[1])
    disk = float(re.search(r"disk about (\S+) MB", printed)[1].replace(",", "")) / 1000
    assert said == [pytest.approx(hours, rel=0.1), pytest.approx(disk, rel=0.1)]
    assert not (project.folder / f"config/{name}.lock.yaml").exists()
    assert re.findall(r"revision: (\S+)", text) and all(
        re.fullmatch("[0-9a-f]{40}", r) for r in re.findall(r"revision: (\S+)", text)
    )
