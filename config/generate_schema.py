"""Write config/experiment.schema.json, by which editors complete and check experiment files.

With --check, write nothing and fail if it is out of date.
"""

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = ROOT / "config/experiment.schema.json"
sys.path.insert(0, str(ROOT / "workflow/scripts"))

from mllm.config import json_schema  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if the schema is out of date")
    content = json.dumps(json_schema(), indent=2) + "\n"
    if parser.parse_args().check:
        if not SCHEMA.exists() or SCHEMA.read_text() != content:
            sys.exit(f"{SCHEMA.relative_to(ROOT)}: not what mllm/config.py says; run make envs")
    else:
        SCHEMA.write_text(content)


if __name__ == "__main__":
    main()
