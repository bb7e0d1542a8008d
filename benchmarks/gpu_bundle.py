"""Pack the project, and the packages that a machine with torch lacks, into one file, for GPUs without a package index.

The machine needs Linux on x86-64, Python 3.12, torch 2.11 or later, transformers 5.17 or later, accelerate, peft and
scikit-learn. Run there: tar xf gpu-bundle.tar && bash mllm/gpu.sh
"""

import argparse
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (
    "polars", "polars-runtime-32", "pydantic", "pydantic-core", "mergekit", "immutables", "typing-extensions",
    "typing-inspection", "annotated-types", "pytest", "pluggy", "iniconfig",
)  # fmt: skip
LIMIT = 60 * 2**20
RUN = """#!/usr/bin/env bash
# Runs the tests on the GPU, then measures; each runs even if the other fails. --rehearse: no GPU, no measurement.
set -u
cd "$(dirname "$0")"
python=${PYTHON:-python3}
mkdir -p site results
for wheel in wheels/*.whl; do "$python" -m zipfile -e "$wheel" site || exit 1; done
export PYTHONPATH=$PWD/site HF_HUB_OFFLINE=1
"$python" -m pytest -q -m gpu tests/test_on_gpu.py 2>&1 | tee results/gpu-tests.log
tests=${PIPESTATUS[0]}
"$python" benchmarks/gpu.py "$@" || exit 1
exit "$tests"
"""


def locked() -> dict[str, str]:
    """Return package -> version in uv.lock."""
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    return {package["name"]: package["version"] for package in lock["package"] if "version" in package}


def main(arguments: argparse.Namespace) -> None:
    versions = locked()
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name, tarfile.open(arguments.output, "w") as bundle:
        folder = Path(name)
        wanted = [f"{package}=={versions[package]}" for package in PACKAGES]
        platform = ["--only-binary=:all:", "--python-version", arguments.python, "--platform", "manylinux2014_x86_64"]
        subprocess.run(
            [arguments.pip, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, *platform, *wanted],
            check=True,
        )
        (folder / "gpu.sh").write_text(RUN)
        bundle.add(folder / "gpu.sh", "mllm/gpu.sh")
        for wheel in sorted(folder.glob("*.whl")):
            bundle.add(wheel, f"mllm/wheels/{wheel.name}")
        for file in filter(None, listed.split("\0")):
            if (ROOT / file).is_file():
                bundle.add(ROOT / file, f"mllm/{file}")
    size = arguments.output.stat().st_size
    print(f"{arguments.output}: {size / 2**20:.1f} MiB. On the machine with the GPU:")
    print(f"  tar xf {arguments.output.name} && bash mllm/gpu.sh")
    if size > LIMIT:
        sys.exit(
            f"error: {arguments.output}: too large (found {size / 2**20:.1f} MiB, expected at most {LIMIT / 2**20:.0f})"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "results/gpu-bundle.tar")
    parser.add_argument("--python", default="3.12", help="Python of the machine with the GPU")
    parser.add_argument("--pip", default=sys.executable, help="a Python that has pip")
    main(parser.parse_args())
