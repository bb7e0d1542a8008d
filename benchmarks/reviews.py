"""Time the data stage on files of the official size and of ten times that, against the same cleaning with pandas.

`make bench` runs it. Each way is a separate process; memory is its peak. benchmarks/README.md has the figures.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
HEADER = "\tdrugName\tcondition\treview\trating\tdate\tusefulCount\r\n"
ROWS = (161_297, 53_766)  # rows of the official files
MEAN_WORDS, MOST_WORDS = 84, 500
CONDITIONS = (
    "Birth Control",
    "Depression",
    "Pain",
    "Bipolar Disorde",
    "ibromyalgia",
    "Acne",
    "Not Listed / Othe",
    "ADHD",
)


def write(folder: Path, times: int) -> list[Path]:
    """Write ``times`` times the official rows, with the official format, lengths, entities and share of duplicates."""
    rng = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(letters[rng.integers(26, size=int(rng.integers(2, 9)))]) for _ in range(20_000)]
    words += ["it&#039;s", "&quot;ok&quot;", "don&#039;t", "well.", "no!"] * 700
    words += ["bipolar", "disorder", "fibromyalgia", "other"] * 100
    vocabulary = np.array(words)
    texts: list[str] = []
    paths, number = [], 0
    for name, rows in zip(("train", "test"), ROWS, strict=True):
        path = folder / f"{name}.tsv"
        paths.append(path)
        with path.open("w", newline="") as stream:
            stream.write(HEADER)
            for _ in range(rows * times):
                if texts and rng.random() < 0.3:  # the same review under another drug
                    text = texts[int(rng.integers(len(texts)))]
                else:
                    length = int(min(MOST_WORDS, max(3, rng.gamma(2.5, MEAN_WORDS / 2.5))))
                    text = " ".join(vocabulary[rng.integers(len(vocabulary), size=length)])
                    text = text.replace(" ", "\r\r\n", 1) if rng.random() < 0.1 else text
                    texts = [*texts[-5000:], text] if number % 7 == 0 else texts
                condition = (
                    CONDITIONS[number % len(CONDITIONS)]
                    if number % 90
                    else "3</span> users found this comment helpful."
                )
                stream.write(
                    f'{number}\tDrug {number % 3000}\t{condition}\t"""{text}"""\t{number % 10 + 1}.0\tMay {number % 28 + 1}, 20{8 + number % 10:02}\t{number % 90}\r\n'
                )
                number += 1
    return paths


PANDAS = '''
import html, sys
import pandas as pd
frames = []
for path in sys.argv[1:3]:
    frame = pd.read_csv(path, sep="\\t")
    frame["review"] = frame["review"].map(html.unescape).map(html.unescape).str.replace("\\r", "").str.strip().str.strip('"')
    frame["condition"] = frame["condition"].where(~frame["condition"].str.contains("</span>", na=False)).map(html.unescape, na_action="ignore")
    frame["drugName"] = frame["drugName"].map(html.unescape)
    frame["date"] = pd.to_datetime(frame["date"], format="%B %d, %Y")
    frames.append(frame[frame["rating"].between(1, 10) & (frame["review"] != "")].drop_duplicates())
whole = pd.concat(frames)
whole["group"] = whole.groupby(whole["review"].str.lower().str.replace(r"\\s+", " ", regex=True), sort=False).ngroup()
whole.to_parquet(sys.argv[3])
'''  # fmt: skip


def run(what: str, command: list[object]) -> None:
    """Run a command and print its seconds and its peak memory."""
    begin = time.perf_counter()
    process = subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    error = process.stderr.read() if process.stderr else b""
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    if status:
        sys.exit(f"{what} failed:\n{error.decode()[-2000:]}")
    print(f"{what:<44}{seconds:>9.1f} s{usage.ru_maxrss / 2**20:>9.2f} GB", flush=True)


def main(arguments: argparse.Namespace) -> None:
    for times in arguments.times:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            train, test = write(folder, times)
            size = (train.stat().st_size + test.stat().st_size) / 2**20
            print(f"{sum(ROWS) * times:,} rows, {size:,.0f} MB")
            scripts, out = ROOT / "workflow/scripts", folder / "data"
            run("clean_reviews", [
                sys.executable, scripts / "clean_reviews.py", "--train", train, "--test", test,
                "--reviews", out / "reviews.parquet", "--rejected", out / "rejected.parquet", "--quality", out / "quality.json",
            ])  # fmt: skip
            run("split_reviews", [
                sys.executable, scripts / "split_reviews.py", "--reviews", out / "reviews.parquet", "--split",
                json.dumps({"mode": "official-clean", "valid": 0.1}), "--seed", 1, "--tasks",
                json.dumps([{"name": "rating", "label": "rating"}, {"name": "sentiment", "label": "sentiment"}]), "--output", out,
            ])  # fmt: skip
            base = folder / "base"
            sys.path.insert(0, str(scripts))
            from mllm.models.scratch import train_tokenizer

            train_tokenizer(
                train.read_bytes()[:2_000_000].decode(errors="ignore").splitlines(), 5000, 512
            ).save_pretrained(base)
            run("describe_reviews", [
                sys.executable, scripts / "describe_reviews.py", "--data", out, "--model", base, "--statistics", out / "statistics.parquet",
                "--figures", folder / "figures",
            ])  # fmt: skip
            if times == 1 or arguments.pandas:
                run(
                    "pandas: read, clean, group (no more)",
                    [sys.executable, "-c", PANDAS, train, test, folder / "pandas.parquet"],
                )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, nargs="+", default=[1], help="multiples of the official number of rows")
    parser.add_argument("--pandas", action="store_true", help="also time pandas at every size")
    main(parser.parse_args())
