"""List, as JSON, each job of an experiment with the scripts and modules that its code digests are of.

Snakemake makes the jobs from the real rules; each digest is replaced by the names that it would cover. It runs in a
separate process, since that changes Snakemake. Arguments: the project's folder, the experiment file.
"""

import contextlib
import io
import json
import sys
from pathlib import Path

from snakemake.api import ConfigSettings, OutputSettings, ResourceSettings, SnakemakeApi

ROOT = Path(sys.argv[1])
sys.path.insert(0, str(ROOT / "workflow/scripts"))
from mllm.core import code_digest  # noqa: E402

code_digest.code_digest = lambda *names: "code " + " ".join(names)


def names(params: object) -> list[list[str]]:
    values = [v for value in params for v in (value if isinstance(value, list) else [value])]  # type: ignore[attr-defined]
    return [v.split()[1:] for v in values if isinstance(v, str) and v.startswith("code ")]


jobs = []
with contextlib.redirect_stdout(io.StringIO()), SnakemakeApi(OutputSettings()) as api:
    workflow = api.workflow(ResourceSettings(cores=1), ConfigSettings(configfiles=[Path(sys.argv[2])]), snakefile=ROOT / "Snakefile")  # fmt: skip
    workflow.dag().printrulegraph()
    for job in workflow._workflow.dag.jobs:
        jobs += [{"rule": job.rule.name, "of": "".join(job.wildcards), "code": code} for code in names(job.params)]
print(json.dumps(jobs))
