"""Download and verify repositories of the Hugging Face hub: safetensors only, never code."""

import hashlib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from mllm.core.errors import Failure
from mllm.core.files import read_json
from mllm.core.messages import log, step

# Weights in other formats, and code, are never downloaded.
WANTED = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model", "*.jinja", "LICENSE*", "README.md"]
UNWANTED = ["onnx/*", "*/*"]
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")
TOKENIZERS = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model")


class HubError(Failure):
    """A request to the hub failed."""


def facts(repository: str, revision: str) -> Any:
    """Return the hub's facts about a repository: its commit (``sha``), its files with sizes and digests (``siblings``).

    Raises:
        HubError: there is no such repository or revision, it is gated, or the hub cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    what = f"{repository} at {revision}"
    try:
        return HfApi().model_info(repository, revision=revision, files_metadata=True)
    except GatedRepoError:
        raise HubError(
            f"{what}: the model is gated. Fix: accept its terms on the hub and set HF_TOKEN in the environment"
        ) from None
    except RevisionNotFoundError:
        raise HubError(f"{what}: no such revision. Fix: give the 40 digits of a commit of that repository") from None
    except RepositoryNotFoundError:
        raise HubError(
            f"{what}: no such repository, or a private one. Fix: correct its id, or set HF_TOKEN in the environment"
        ) from None
    except Exception as error:  # errors of several libraries: httpx, the hub's client
        raise HubError(f"{what}: the hub cannot be reached: {_first_line(error)}. Fix: rerun later") from None


def download(repository: str, revision: str, folder: Path) -> None:
    """Download a checkpoint into a folder, resume an earlier attempt, and compare every file with the hub's digest.

    Raises:
        HubError: the repository has no safetensors or no tokenizer, or needs code of its own; the download broke off or
            was damaged.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError

    what, files = f"{repository} at {revision}", {s.rfilename: s for s in facts(repository, revision).siblings}
    wanted = [n for n in files if any(fnmatch(n, p) for p in WANTED) and not any(fnmatch(n, p) for p in UNWANTED)]
    if not any(n.endswith(".safetensors") for n in wanted):
        pickles = sorted(n for n in files if any(fnmatch(n, p) for p in PICKLES))
        why = f", only {pickles[0]}, a format that can run code or that is not read here" if pickles else ""
        raise HubError(f"{what}: no weights in safetensors format{why}. Fix: use another revision or repository")
    if "config.json" not in files:
        raise HubError(f"{what}: no config.json; expected a checkpoint of transformers")
    if not any(n in files for n in TOKENIZERS):
        raise HubError(f"{what}: no tokenizer ({', '.join(TOKENIZERS)}); expected one beside the weights")
    for _ in range(2):
        try:
            with step(lambda: f"downloading: {_mb(folder):,} MB of {sum(files[n].size or 0 for n in wanted) >> 20:,}"):
                snapshot_download(
                    repository, revision=revision, local_dir=folder, allow_patterns=WANTED, ignore_patterns=UNWANTED
                )
        except GatedRepoError:  # some repositories show their list to everybody
            raise HubError(
                f"{what}: the model is gated. Fix: accept its terms on the hub and set HF_TOKEN in the environment"
            ) from None
        except Exception as error:
            raise HubError(
                f"{what}: download failed: {_first_line(error)}. Fix: rerun; complete files are kept"
            ) from None
        damaged = [n for n in wanted if not _is_whole(folder / n, files[n])]
        for name in damaged:
            log.info("%s: %s does not have the hub's digest; it is removed", what, name)
            (folder / name).unlink(missing_ok=True)
        if not damaged:
            break
    else:
        raise HubError(
            f"{what}: {damaged[0]} does not have the digest that the hub names, twice in a row: it was damaged or changed in"
            " transit. Fix: rerun, or check the connection between this machine and the hub (HF_ENDPOINT?)"
        )
    if read_json(folder / "config.json").get("auto_map"):
        raise HubError(
            f"{what}: needs code of its own (auto_map in config.json), which is never run. Fix: use a model of transformers"
        )


def _mb(folder: Path) -> int:
    """Return the MB (2**20 bytes) received so far, with unfinished files of the hub's client."""
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) >> 20


def _is_whole(file: Path, sibling: Any) -> bool:
    """Return whether a file equals the hub's: by SHA-256 if the hub stores it outside git, else by git's digest."""
    if not file.exists():
        return False
    size = file.stat().st_size
    apart = sibling.lfs is not None
    total = hashlib.sha256() if apart else hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            total.update(block)
    return total.hexdigest() == (sibling.lfs.sha256 if apart else sibling.blob_id)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def commit_of(repository: str, revision: str) -> str:
    """Return the commit of a branch or tag of the hub.

    Raises:
        OSError: the commit is unknown; the text gives the reason.
    """
    try:
        return str(facts(repository, revision).sha)
    except HubError as error:
        raise OSError(str(error)) from None
