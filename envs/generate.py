"""Write the environment files for conda and Apptainer from uv.lock, so that all three install the same versions.

With --check, write nothing and fail if a file is out of date.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

ENVS = Path(__file__).resolve().parent
PYTHON = "3.11"


def locked() -> list[str]:
    """Return the locked packages as pip requirements, one per line, without development tools."""
    command = [
        shutil.which("uv") or str(Path(sys.executable).with_name("uv")),
        "export",
        "--frozen",
        "--no-dev",
        "--no-hashes",
        "--no-header",
        "--no-annotate",
        "--no-emit-project",
    ]
    exported = subprocess.run(command, cwd=ENVS.parent, check=True, capture_output=True, text=True).stdout
    return exported.split("\n")[:-1]


def files(requirements: list[str]) -> dict[str, str]:
    """Return name -> content of each generated file."""
    head = "# Made from uv.lock by envs/generate.py (make envs); do not edit.\n"
    pip = "".join(f"      - {line!r}\n" for line in requirements)
    conda = f"{head}channels:\n  - conda-forge\n  - nodefaults\ndependencies:\n  - python ={PYTHON}\n  - pip\n  - pip:\n{pip}"
    apptainer = f"""{head}# Build:  apptainer build mllm.sif envs/mllm.def     Use:  snakemake --sdm apptainer, or apptainer exec --nv mllm.sif …
Bootstrap: docker
From: python:{PYTHON}-slim

%files
    envs/requirements.txt /opt/requirements.txt

%post
    apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
    pip install --no-cache-dir -r /opt/requirements.txt
"""
    return {"requirements.txt": head + "\n".join(requirements) + "\n", "mllm.yaml": conda, "mllm.def": apptainer}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if a file is out of date")
    check = parser.parse_args().check
    stale = []
    for name, content in files(locked()).items():
        path = ENVS / name
        if not path.exists() or path.read_text() != content:
            stale.append(path.name)
            if not check:
                path.write_text(content)
    if check and stale:
        sys.exit(f"envs/{', envs/'.join(stale)}: out of date (differs from uv.lock). Fix: run make envs")


if __name__ == "__main__":
    main()
