"""Download a checkpoint from the Hugging Face hub at a pinned commit; safetensors only, never code."""

import argparse
from pathlib import Path

from mllm.core import script


def main(arguments: argparse.Namespace) -> None:
    from mllm.models import hub
    from mllm.models.checkpoint_files import check_whole

    # The hub client resumes in this folder; only a complete download gets the final name.
    unfinished = arguments.output.with_name(f".{arguments.output.name}.part")
    hub.download(arguments.id, arguments.revision, unfinished)
    check_whole(unfinished)
    unfinished.replace(arguments.output)


if __name__ == "__main__":
    parser = script.parser(__doc__)
    parser.add_argument("--id", required=True, help="repository, as owner/name")
    parser.add_argument("--revision", required=True, help="commit to download")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    script.run(main, parser.parse_args())
