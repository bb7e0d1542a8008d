"""Download from a real HTTP server on loopback that fails in the usual ways."""

import io
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from conftest import run_script
from mllm.core.errors import Failure
from mllm.data import download

CONTENT = bytes(range(256)) * 4000


class Handler(BaseHTTPRequestHandler):
    plan: ClassVar[list[str]] = []
    seen: ClassVar[list[str | None]] = []
    content = CONTENT

    def do_GET(self):
        step = self.plan.pop(0) if len(self.plan) > 1 else self.plan[0]
        span = self.headers.get("Range")
        self.seen.append(span)
        if step.isdigit():
            return self.send_error(int(step))
        start = int(span.removeprefix("bytes=").rstrip("-")) if span and step != "no-range" else 0
        if start >= len(self.content):
            return self.send_error(416)
        body = self.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if step == "cut":
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
        elif step == "stall":
            self.wfile.write(body[:1000])
            threading.Event().wait(3)
        else:
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.5)
    monkeypatch.setattr(Handler, "seen", [])
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{made.server_port}/x.zip"
    made.shutdown()


@pytest.mark.parametrize(
    "plan",
    [["ok"], ["cut", "ok"], ["cut", "cut", "ok"], ["stall", "ok"], ["500", "503", "ok"], ["cut", "no-range"]],
    ids="+".join,
)
def test_a_whole_file_in_the_end(server, tmp_path, monkeypatch, plan):
    monkeypatch.setattr(Handler, "plan", list(plan))
    download.download([server], tmp_path / "x.zip", pause=0)
    assert (tmp_path / "x.zip").read_bytes() == CONTENT
    assert [p.name for p in tmp_path.iterdir()] == ["x.zip"]
    if plan[0] == "cut":
        assert Handler.seen[1] == f"bytes={len(CONTENT) // 2}-"


@pytest.mark.parametrize(("plan", "word"), [("404", "404"), ("500", "500"), ("stall", "timed out")])
def test_one_clear_error_and_no_half_file(server, tmp_path, monkeypatch, plan, word):
    monkeypatch.setattr(Handler, "plan", [plan])
    with pytest.raises(Failure, match=f"x.zip: download failed: .*{word}.*rerun"):
        download.download([server], tmp_path / "x.zip", pause=0)
    assert not (tmp_path / "x.zip").exists()


def test_the_second_address_is_tried(server, tmp_path, monkeypatch):
    monkeypatch.setattr(Handler, "plan", ["404", "ok"])
    download.download([server, server + "?2"], tmp_path / "x.zip", pause=0)
    assert (tmp_path / "x.zip").read_bytes() == CONTENT


def test_what_stood_there_survives_a_failure(server, tmp_path, monkeypatch):
    monkeypatch.setattr(Handler, "plan", ["404"])
    (tmp_path / "x.zip").write_bytes(b"before")
    with pytest.raises(Failure):
        download.download([server], tmp_path / "x.zip", pause=0)
    assert (tmp_path / "x.zip").read_bytes() == b"before"


def zipped(**files: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/").replace("UP", ".."), content)
    return stream.getvalue()


TSV = b"\tdrugName\tcondition\treview\trating\tdate\tusefulCount\r\n" + b"".join(
    b'%d\tD\tPain\t"""a %d"""\t9.0\tMay 20, 2012\t0\r\n' % (i, i) for i in range(50)
)
MEMBERS = (download.Member("a.tsv", 50, "0" * 40),)


def test_members_are_matched_by_base_name_and_stay_inside(tmp_path, caplog):
    folder = tmp_path / "inside"
    folder.mkdir()
    (tmp_path / "x.zip").write_bytes(zipped(**{"UP__UP__a.tsv": TSV, "evil": b"x"}))
    download.extract(tmp_path / "x.zip", MEMBERS, folder)
    assert (folder / "a.tsv").read_bytes() == TSV
    assert {p.name for p in tmp_path.rglob("*")} == {"inside", "a.tsv", "x.zip"}
    assert "differs from the known file" in caplog.text  # right number of rows, other bytes


def test_wrong_contents(tmp_path):
    (tmp_path / "x.zip").write_bytes(zipped(**{"b.tsv": TSV}))
    with pytest.raises(Failure, match=r"no file a\.tsv \(found b\.tsv\)"):
        download.extract(tmp_path / "x.zip", MEMBERS, tmp_path)
    (tmp_path / "x.zip").write_bytes(
        zipped(**{"a.tsv": TSV + TSV.split(b"\r\n")[1].replace(b"0\t", b"99\t", 1) + b"\r\n"})
    )
    with pytest.raises(Failure, match="found 51 reviews, expected 50"):
        download.extract(tmp_path / "x.zip", MEMBERS, tmp_path)
    assert not (tmp_path / "a.tsv").exists()


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"<html>", lambda b: b[:60] + b"xxxx" + b[64:]]
)
def test_a_damaged_archive_is_one_clear_error(tmp_path, damage):
    (tmp_path / "a.tsv").write_bytes(b"before")
    (tmp_path / "x.zip").write_bytes(damage(zipped(**{"a.tsv": TSV})))
    with pytest.raises(Failure, match=r"x\.zip: not a complete zip archive, removed .*rerun"):
        download.extract(tmp_path / "x.zip", MEMBERS, tmp_path)
    assert (tmp_path / "a.tsv").read_bytes() == b"before"
    assert {p.name for p in tmp_path.iterdir()} == {"a.tsv"}


def test_the_script_end_to_end(server, tmp_path, monkeypatch):
    """The complete command refuses the loopback server's files, since they are not the official ones."""
    monkeypatch.setattr(Handler, "plan", ["cut", "ok"])
    monkeypatch.setattr(Handler, "content", zipped(**{"drugsComTrain_raw.tsv": TSV, "drugsComTest_raw.tsv": TSV}))
    printed = run_script("download_reviews", "--url", server, "--output", tmp_path / "out", ok=False)
    assert printed.splitlines()[-1].startswith(
        "error: drugsComTrain_raw.tsv: not the official file (found 50 reviews, expected 161,297)"
    )
    assert "Traceback" not in printed
