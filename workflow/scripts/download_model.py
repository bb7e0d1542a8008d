"""Download a checkpoint from the Hugging Face hub at a pinned commit; safetensors only, never code."""

import argparse
from pathlib import Path

from mllm import cli

# Weights in other formats, and code, are never fetched.
WANTED = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model", "LICENSE*", "README.md"]
UNWANTED = ["onnx/*", "*/*"]


def main(arguments: argparse.Namespace) -> None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    from mllm.checkpoints import check_whole

    what = f"{arguments.id} at {arguments.revision}"
    # The hub client resumes in this folder; only the whole download gets the final name.
    unfinished = arguments.output.with_name(f".{arguments.output.name}.part")
    try:
        snapshot_download(
            arguments.id,
            revision=arguments.revision,
            local_dir=unfinished,
            allow_patterns=WANTED,
            ignore_patterns=UNWANTED,
        )
    except GatedRepoError:
        raise cli.Failure(
            f"{what}: the model is gated; accept its terms on the hub and set HF_TOKEN in the environment"
        ) from None
    except RevisionNotFoundError:
        raise cli.Failure(f"{what}: no such revision; give the 40 digits of a commit of that repository") from None
    except RepositoryNotFoundError:
        raise cli.Failure(
            f"{what}: no such repository, or a private one (then set HF_TOKEN in the environment)"
        ) from None
    except (HfHubHTTPError, OSError) as error:
        raise cli.Failure(
            f"{what}: download failed: {str(error).splitlines()[0]}; run again, it goes on where it stopped"
        ) from None
    check_whole(unfinished)
    unfinished.replace(arguments.output)


if __name__ == "__main__":
    parser = cli.parser(__doc__)
    parser.add_argument("--id", required=True, help="repository, as owner/name")
    parser.add_argument("--revision", required=True, help="commit")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    cli.run(main, parser.parse_args())
