"""Download the UCI Drug Review Dataset (Drugs.com), and extract the two raw files from the archive."""

import argparse
from pathlib import Path

from mllm.core import script
from mllm.core.messages import log

URLS = (
    "https://archive.ics.uci.edu/static/public/462/drug+review+dataset+drugs+com.zip",
    "https://archive.ics.uci.edu/ml/machine-learning-databases/00462/drugsCom_raw.zip",
)


def main(arguments: argparse.Namespace) -> None:
    from mllm.data import download

    log.info("data set: Graesser et al. 2018, doi 10.1145/3194658.3194677, CC BY 4.0")
    archive = arguments.output / "drugsCom_raw.zip"
    download.download(arguments.url or list(URLS), archive)
    download.extract(archive, download.UCI_FILES, arguments.output)
    archive.unlink()


if __name__ == "__main__":
    parser = script.parser(__doc__)
    parser.add_argument("--url", action="append", help="address of the archive; may be repeated, and is tried in order")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    script.run(main, parser.parse_args())
