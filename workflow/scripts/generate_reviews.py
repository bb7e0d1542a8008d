"""Write synthetic train and test files in the raw format of the UCI Drug Review Dataset."""

import argparse
from pathlib import Path

from mllm.core import script
from mllm.core.files import whole


def main(arguments: argparse.Namespace) -> None:
    from mllm.data import synthetic

    files = synthetic.generate(arguments.rows, arguments.conditions, arguments.seed)
    for path, text in zip((arguments.train, arguments.test), files, strict=True):
        with whole(path) as partial:
            partial.write_text(text, encoding="utf-8", newline="")


if __name__ == "__main__":
    parser = script.parser(__doc__)
    parser.add_argument("--rows", type=int, required=True, help="number of rows in both files together")
    parser.add_argument("--conditions", type=int, required=True, help="number of conditions")
    parser.add_argument("--seed", type=int, required=True, help="seed of the generator")
    parser.add_argument("--train", type=Path, required=True, help="train TSV to write")
    parser.add_argument("--test", type=Path, required=True, help="test TSV to write")
    script.run(main, parser.parse_args())
