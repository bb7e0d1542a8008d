"""Download files completely or not at all; extract archives so that they cannot write outside their folder."""

import hashlib
import os
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from mllm.core.errors import Failure
from mllm.core.files import whole
from mllm.core.messages import log, progress

TIMEOUT = 30.0  # seconds without a byte
ATTEMPTS = 4
BLOCK = 1 << 20


@dataclass(frozen=True)
class Member:
    """A file of the archive: its base name, its number of records, and its known digest."""

    name: str
    rows: int
    blob_sha1: str


# Facts about the official files; a git blob's SHA-1 is taken over "blob <size>\0" and the bytes.
UCI_FILES = (
    Member("drugsComTrain_raw.tsv", 161_297, "e33ca552679c678a565e4a46bb08a81bd2f144c3"),
    Member("drugsComTest_raw.tsv", 53_766, "b6784d0afb8030d193c0016939591b12e8b63833"),
)


def download(urls: list[str], path: Path, pause: float = 2.0) -> None:
    """Download from the first address that answers, and resume an earlier attempt.

    Raises:
        Failure: no address sent the complete file; the bytes received so far stay beside ``path`` for the next attempt.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    reasons = []
    for url in urls:
        partial = path.with_name(f".{path.name}.{hashlib.sha256(url.encode()).hexdigest()[:8]}.part")
        for attempt in range(ATTEMPTS):
            try:
                _fetch(url, partial)
                partial.replace(path)
                return
            except urllib.error.HTTPError as error:
                reasons.append(f"{url}: {error.code} {error.reason}")
                if error.code == 416:  # the bytes we have are not part of the file there
                    partial.unlink(missing_ok=True)
                elif 400 <= error.code < 500 and error.code != 429:
                    break
            except (OSError, EOFError) as error:
                reasons.append(f"{url}: {error or type(error).__name__}")
            log.info("%s", reasons[-1])
            time.sleep(pause * 2**attempt if attempt + 1 < ATTEMPTS else 0)
    unique = "; ".join(dict.fromkeys(reasons))
    raise Failure(f"{path.name}: download failed: {unique}. Fix: check the network and rerun; the download resumes")


def _fetch(url: str, partial: Path) -> None:
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        resumed = answer.status == 206
        length = answer.headers.get("Content-Length")
        total = int(length) + (have if resumed else 0) if length else None
        log.info("%s %s, %s bytes", "resuming" if resumed else "fetching", url, f"{total:,}" if total else "unknown")
        with partial.open("ab" if resumed else "wb") as stream:
            blocks = iter(lambda: answer.read(BLOCK), b"")
            for block in progress(blocks, "downloading", total=total // BLOCK + 1 if total else None, unit="MB"):
                stream.write(block)
            stream.flush()
            os.fsync(stream.fileno())
    if total is not None and partial.stat().st_size != total:
        raise EOFError(f"ended after {partial.stat().st_size:,} of {total:,} bytes")


def extract(archive: Path, members: tuple[Member, ...], folder: Path) -> None:
    """Extract the wanted files of a zip archive, matched by base name, into ``folder`` only.

    Raises:
        Failure: the archive is cut or damaged (it is then removed), lacks a file, or a file has the wrong number of
            records. If the number is right, an unknown digest is only a warning.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            inside = {Path(name).name: name for name in opened.namelist()}
            for member in members:
                if member.name not in inside:
                    raise Failure(f"{archive}: no file {member.name} (found {', '.join(inside) or 'nothing'})")
                target = folder / member.name
                with whole(target) as partial:
                    with opened.open(inside[member.name]) as source, partial.open("wb") as out:
                        while block := source.read(BLOCK):
                            out.write(block)
                    _verify(partial, member)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        size = archive.stat().st_size
        archive.unlink()
        raise Failure(
            f"{archive}: not a complete zip archive, removed ({size:,} bytes; {error}). Fix: rerun to download it again"
        ) from None


def _verify(path: Path, member: Member) -> None:
    from mllm.data.raw_files import read_raw

    content = path.read_bytes()
    sha1 = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    if sha1 == member.blob_sha1:
        return
    rows = read_raw(path).height
    if rows != member.rows:
        raise Failure(f"{member.name}: not the official file (found {rows:,} reviews, expected {member.rows:,})")
    log.warning(
        "WARNING: %s differs from the known file (found git blob %s), but the number of rows is right",
        member.name,
        sha1,
    )
