"""Test `make doctor`: its findings, and its advice."""

import os
import socket
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from conftest import ROOT

SECRET = "hf_never_shown"


def doctor(*arguments: object, ok: bool = True, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "profiles/doctor.py", "--timeout", "2", *map(str, arguments)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **environment},
    )  # fmt: skip
    assert (done.returncode == 0) == ok, done.stdout
    return done.stdout


class Answering(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_response(403)  # it still answers
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def hub():
    server = HTTPServer(("127.0.0.1", 0), Answering)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_laptop_is_well(hub):
    said = doctor("--profile", "profiles/local", HF_ENDPOINT=hub, HF_TOKEN=SECRET)
    for line in ("✓ profile: profiles/local/config.yaml (executor local)", "✓ Python: 3.", "✓ packages: snakemake 9.",
                 "GB free in", f"✓ hub: {hub} answers; HF_TOKEN is set", "✓ this "):  # fmt: skip
        assert line in said
    assert SECRET not in said


def test_without_network_it_says_who_needs_one():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        said = doctor("--profile", "profiles/local", HF_ENDPOINT=url)
    assert f"! hub: {url} does not answer" in said and "only models of source: hub need it" in said


def test_old_packages_and_a_strange_profile(tmp_path):
    (tmp_path / "config.yaml").write_text("executor: kubernetes")
    said = doctor("--profile", tmp_path, ok=False)
    assert "✗ profile:" in said and "expected one of local, slurm" in said and "1 check failed" in said
    said = doctor("--profile", tmp_path / "none", ok=False)
    assert "cannot read the profile" in said and "make doctor PROFILE=profiles/slurm" in said


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="there is a GPU here")
def test_a_gpu_or_none():
    assert "✓ GPU: none;" in doctor("--profile", "profiles/local")


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "no such file"), ("name: x\nseeds: 3\n", "did you mean 'seed'?"), ("name: x\nkeep none\n", "line 3")],
)  # fmt: skip
def test_make_grid_says_what_is_wrong(tmp_path, content, said):
    """It explains the error, without a traceback."""
    file = tmp_path / "mine.yaml"
    if content:
        file.write_text(content)
    done = subprocess.run(["make", "-s", "grid", f"CONFIG={file}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode and f"error: {file}: " in done.stderr and said in done.stderr
    assert "Traceback" not in done.stderr
