"""The hub's real client against a small server on loopback that answers as the hub does."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
import torch
from safetensors.torch import save

from conftest import run_script
from mllm import checkpoints

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WHOLE = {
    "config.json": b"{}",
    "model.safetensors": save({"w": torch.ones(5000)}),
    "tokenizer.json": b"{}",
    "pytorch_model.bin": b"a pickle",
    "modeling_evil.py": b"raise SystemExit",
    "onnx/model.onnx": b"x",
}


class Hub(BaseHTTPRequestHandler):
    repositories: ClassVar[dict[str, dict[str, bytes]]] = {}
    asked: ClassVar[list[str]] = []

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        self.asked.append(self.path)
        parts = self.path.split("?")[0].strip("/").split("/")
        api = parts[0] == "api"
        repository = "/".join(parts[2:4] if api else parts[:2])
        files = self.repositories.get(repository)
        if files is None:
            return self.refuse("RepoNotFound")
        if COMMIT not in parts:
            return self.refuse("RevisionNotFound")
        if api:
            listing = [
                {"rfilename": n, "type": "file", "path": n, "size": len(c), "oid": "0" * 40} for n, c in files.items()
            ]
            value = listing if "tree" in parts else {"id": repository, "sha": COMMIT, "siblings": listing}
            return self.send(json.dumps(value).encode(), "application/json", body)
        content = files["/".join(parts[4:])]
        self.send(content, "application/octet-stream", body, ETag=f'"{hashlib.sha256(content).hexdigest()}"')

    def send(self, content, kind, body, **headers):
        self.send_response(200)
        for name, value in {
            "Content-Length": len(content),
            "Content-Type": kind,
            "X-Repo-Commit": COMMIT,
            **headers,
        }.items():
            self.send_header(name, str(value))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def refuse(self, code):
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(Hub, "asked", [])
    monkeypatch.setattr(Hub, "repositories", {"o/good": WHOLE})
    yield Hub
    server.shutdown()


def download(tmp_path, name="o/good", revision=COMMIT, ok=True):
    out = tmp_path / "models" / revision
    printed = run_script(
        "download_model", "--id", name, "--revision", revision, "--output", out, "--log", tmp_path / "log", ok=ok
    )
    assert not printed
    return out, (tmp_path / "log").read_text()


def test_a_pinned_checkpoint_without_pickles_or_code(hub, tmp_path):
    out, log = download(tmp_path)
    found = {p.name for p in out.rglob("*") if p.is_file() and ".cache" not in p.parts}
    assert found == {"config.json", "model.safetensors", "tokenizer.json"}
    assert torch.equal(checkpoints.read_state(out)["w"], torch.ones(5000))
    assert not [path for path in hub.asked if path.endswith((".bin", ".py", ".onnx"))]
    assert "hf_secret" not in log
    assert [p.name for p in out.parent.iterdir()] == [COMMIT]


@pytest.mark.parametrize(
    ("name", "revision", "files", "message"),
    [
        ("o/none", COMMIT, WHOLE, "no such repository, or a private one"),
        ("o/good", "f" * 40, WHOLE, "no such revision; give the 40 digits of a commit"),
        ("o/good", COMMIT, {"config.json": b"{}", "pytorch_model.bin": b"x"}, "model.safetensors is missing"),
        ("o/good", COMMIT, {**WHOLE, "model.safetensors": WHOLE["model.safetensors"][:-7]}, "its header announces"),
    ],
)
def test_one_clear_error_and_no_folder(hub, tmp_path, name, revision, files, message):
    hub.repositories["o/good"] = files
    out, log = download(tmp_path, name, revision, ok=False)
    assert message in log.splitlines()[-1]
    assert log.splitlines()[-1].startswith("error: ")
    assert not out.exists()
