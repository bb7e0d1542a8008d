"""Test the hub's real client with a small server on loopback that answers as the hub does."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
import torch
import yaml
from safetensors.torch import save

from conftest import ROOT, SCRIPTS, run_script
from mllm.experiment import load, yaml_files
from mllm.models import hub, loading

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = save({"w": torch.ones(500_000)})
WHOLE = {
    "config.json": b"{}",
    "model.safetensors": WEIGHTS,
    "tokenizer.json": b"{}",
    "pytorch_model.bin": b"a pickle",
    "modeling_evil.py": b"raise SystemExit",
    "onnx/model.onnx": b"x",
}


class Hub(BaseHTTPRequestHandler):
    """Answers the requests of snapshot_download and model_info."""

    repositories: ClassVar[dict[str, dict[str, bytes]]] = {}
    branches: ClassVar[dict[str, str]] = {}
    gated: ClassVar[set[str]] = set()
    sent: ClassVar[dict[str, bytes]] = {}  # content that is sent instead of a file's own
    cut: ClassVar[dict[str, int]] = {}  # number of times that a file's connection breaks off half-way
    asked: ClassVar[list[tuple[str, str, str]]] = []  # verb, path, range

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        self.asked.append((self.command, self.path.split("?")[0], self.headers.get("Range", "")))
        parts = self.path.split("?")[0].strip("/").split("/")
        api = parts[0] == "api"
        repository = "/".join(parts[2:4] if api else parts[:2])
        files = self.repositories.get(repository)
        if files is None:
            return self.refuse(404, "RepoNotFound")
        if repository in self.gated and not self.headers.get("Authorization"):
            return self.refuse(403, "GatedRepo")
        if COMMIT not in parts and not set(parts) & self.branches.keys():
            return self.refuse(404, "RevisionNotFound")
        if api:
            listing = [self.entry(n, c) for n, c in files.items()]
            value = listing if "tree" in parts else {"id": repository, "sha": COMMIT, "siblings": listing}
            return self.send(json.dumps(value).encode(), "application/json", body)
        name = "/".join(parts[4:])
        etag = hashlib.sha256(files[name]).hexdigest()
        cut = body and self.cut.get(name, 0) > 0
        if cut:
            self.cut[name] -= 1
        self.send(self.sent.get(name, files[name]), "application/octet-stream", body, cut, ETag=f'"{etag}"')

    def entry(self, name, content):
        """Weights are stored outside git, by SHA-256; git stores the other files."""
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        found = {"rfilename": name, "type": "file", "path": name, "size": len(content), "oid": blob, "blobId": blob}
        if name.endswith((".safetensors", ".bin")):
            digest = hashlib.sha256(content).hexdigest()  # the API names it in two ways
            found["lfs"] = {"size": len(content), "sha256": digest, "oid": digest, "pointerSize": 134}
        return found

    def send(self, content, kind, body, cut=False, **headers):
        begin = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        self.send_response(206 if begin else 200)
        whole, content = len(content), content[begin:]
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{whole - 1}/{whole}")
        facts = {
            "Content-Length": len(content),
            "Content-Type": kind,
            "X-Repo-Commit": COMMIT,
            "Accept-Ranges": "bytes",
        }
        for name, value in {**facts, **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if body:
            self.wfile.write(content[: len(content) // 2] if cut else content)
            self.close_connection = self.close_connection or cut

    def refuse(self, status, code):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    for name, empty in {"asked": [], "gated": set(), "sent": {}, "cut": {}, "branches": {}}.items():
        monkeypatch.setattr(Hub, name, empty)
    monkeypatch.setattr(Hub, "repositories", {"o/good": dict(WHOLE)})
    yield Hub
    server.shutdown()


def download(tmp_path, name="o/good", revision=COMMIT, ok=True):
    out = tmp_path / "models" / revision
    printed = run_script(
        "download_model", "--id", name, "--revision", revision, "--output", out, "--log", tmp_path / "log", ok=ok
    )
    assert not printed
    return out, (tmp_path / "log").read_text()


def test_a_pinned_checkpoint_without_pickles_or_code(server, tmp_path):
    out, log = download(tmp_path)
    found = {p.name for p in out.rglob("*") if p.is_file() and ".cache" not in p.parts}
    assert found == {"config.json", "model.safetensors", "tokenizer.json"}
    assert torch.equal(loading.read_state(out)["w"], torch.ones(500_000))
    assert not [path for _, path, _ in server.asked if path.endswith((".bin", ".py", ".onnx"))]
    assert "hf_secret" not in log
    assert [p.name for p in out.parent.iterdir()] == [COMMIT]


@pytest.mark.parametrize(
    ("name", "revision", "files", "message"),
    [
        ("o/none", COMMIT, {}, "no such repository, or a private one"),
        ("o/good", "f" * 40, {}, "no such revision. Fix: give the 40 digits of a commit"),
        ("o/good", COMMIT, {"model.safetensors": None}, "in safetensors format, only pytorch_model.bin, a format that can run"),
        ("o/good", COMMIT, {"tokenizer.json": None}, "no tokenizer (tokenizer.json, vocab.json"),
        ("o/good", COMMIT, {"config.json": None}, "no config.json; expected a checkpoint of transformers"),
        ("o/good", COMMIT, {"config.json": b'{"auto_map": {"AutoModel": "modeling_evil.M"}}'}, "needs code of its own"),
        ("o/good", COMMIT, {"model.safetensors": WEIGHTS[:-7]}, "the file is cut or damaged (found "),
    ],
)  # fmt: skip
def test_one_clear_error_and_no_folder(server, tmp_path, name, revision, files, message):
    server.repositories["o/good"] = {n: c for n, c in {**WHOLE, **files}.items() if c is not None}
    out, log = download(tmp_path, name, revision, ok=False)
    assert message in log.splitlines()[-1]
    assert log.splitlines()[-1].startswith("error: ")
    assert not out.exists()


def test_a_gated_model_needs_a_token(server, tmp_path, monkeypatch):
    server.gated.add("o/good")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))  # no token of this machine's user
    _, log = download(tmp_path, ok=False)
    assert log.splitlines()[-1].endswith(
        "the model is gated. Fix: accept its terms on the hub and set HF_TOKEN in the environment"
    )
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    out, log = download(tmp_path)
    assert (out / "config.json").exists() and "hf_secret" not in log


def fetched(server, name):
    return [span for verb, path, span in server.asked if verb == "GET" and path.endswith(f"/{name}")]


def test_a_download_that_breaks_off_goes_on_where_it_stopped(server, tmp_path):
    large = save({"w": torch.ones(6_000_000)})  # the client writes parts of 10 MB
    server.repositories["o/good"]["model.safetensors"] = large
    server.cut["model.safetensors"] = 1
    out, _ = download(tmp_path)
    assert (out / "model.safetensors").read_bytes() == large
    first, second = fetched(server, "model.safetensors")
    assert first in ("", "bytes=0-") and second.startswith("bytes=10")


def test_what_is_whole_is_not_fetched_again(server, tmp_path):
    server.cut["model.safetensors"] = 1000
    out, log = download(tmp_path, ok=False)
    assert "download failed" in log.splitlines()[-1] and "Fix: rerun; complete files are kept" in log.splitlines()[-1]
    assert not out.exists() and fetched(server, "tokenizer.json")
    server.cut.clear()
    server.asked.clear()
    out, _ = download(tmp_path)
    assert (out / "model.safetensors").read_bytes() == WEIGHTS
    assert fetched(server, "model.safetensors") and not fetched(server, "tokenizer.json")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_tampered_file_is_refused(server, tmp_path, name):
    """It has the right size but other bytes, and is stored outside git or by git."""
    content = WHOLE[name]
    server.sent[name] = content[:-1] + bytes([content[-1] ^ 1])
    out, log = download(tmp_path, ok=False)
    assert f"{name} does not have the digest that the hub names, twice in a row" in log.splitlines()[-1]
    assert not out.exists()
    server.sent.clear()
    out, _ = download(tmp_path)
    assert (out / name).read_bytes() == content


PIN = """
import sys
from mllm.experiment import load, revision_locks
from mllm.models.hub import commit_of
print(revision_locks.pin(load.load(sys.argv[1]), sys.argv[1], commit_of).model("m").revision)
"""


def pinned(file):
    """Pin as a run does first, in a separate process: the client reads its environment once."""
    done = subprocess.run(
        [sys.executable, "-c", PIN, file],
        env={**os.environ, "PYTHONPATH": str(SCRIPTS)},
        capture_output=True,
        text=True,
    )
    return done.stdout.strip() or done.stderr


def test_a_branch_is_resolved_once(server, tmp_path):
    raw = yaml_files.read_yaml(ROOT / "config/demo.yaml")
    model = {"name": "m", "source": "hub", "id": "o/good", "revision": "main"}
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(raw | {"models": [*raw["models"], model]}))
    server.branches["main"] = COMMIT
    assert load.load(file).model("m").revision == "main" and not server.asked
    assert pinned(file) == COMMIT
    lock = tmp_path / "mine.lock.yaml"
    assert yaml.safe_load(lock.read_text()) == {"o/good@main": COMMIT}
    server.asked.clear()
    assert load.load(file).model("m").revision == COMMIT  # from now on
    assert pinned(file) == COMMIT and not server.asked
    lock.unlink()
    server.branches.clear()
    assert "models[2].revision: 'main' of o/good at main: no such revision" in pinned(file)
    assert not lock.exists()
    for damaged in ("nonsense", "<<<<<<< ours\no/good@main: x\n=======\n"):
        lock.write_text(damaged)
        with pytest.raises(yaml_files.ExperimentError, match="delete the file to resolve them again"):
            load.load(file)


def test_no_hub_at_all(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    _, log = download(tmp_path, ok=False)
    assert "the hub cannot be reached" in log.splitlines()[-1]
    assert hub.HubError.__mro__[1].__name__ == "Failure"
