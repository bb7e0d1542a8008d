"""A training that is killed repeatedly, at any moment, ends with the bytes of an undisturbed one."""

import argparse
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "workflow/scripts"))
from conftest import SCRIPTS, write_split
from mllm.core.messages import start_logging

KILLS = 20
STEPS = 120
TEXTS = [f"{'good great' if i % 2 else 'bad awful'} pill number {i} {'word ' * (i % 17)}" for i in range(120)]
SPEC = {
    "name": "tiny", "family": "classifier", "source": "scratch", "architecture": "gpt2", "width": 32, "layers": 2, "heads": 2,
    "vocabulary": 300, "max_length": 24, "pretrain": None,
}  # fmt: skip
HYPER = {
    "epochs": 12.0, "learning_rate": 2e-3, "batch_size": 8, "weight_decay": 0.01, "warmup": 0.1, "seed": 3,
    "early_stopping": 9,
}  # fmt: skip


def forked(work, log: Path) -> int:
    """Start ``work`` in a process that has loaded all libraries; loading them takes longer than a training here."""
    child = os.fork()
    if child:
        return child
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    try:
        start_logging()
        work()
        os._exit(0)
    except BaseException as error:
        print(repr(error), flush=True)
        os._exit(1)


def torment(folder: Path) -> None:
    """Prepare a base, train on it undisturbed, and train on it with kills; this runs in a separate process."""
    sys.path.insert(0, str(SCRIPTS))

    import prepare_base
    import train_expert
    from mllm.core.code_digest import code_digest
    from mllm.data import labelled, splitting  # noqa: F401
    from mllm.models import checkpoint_files, loading, scratch, training, training_rows  # noqa: F401
    from mllm.models.families import classifier  # noqa: F401
    from mllm.prediction import prediction_tables, run_model  # noqa: F401

    code_digest("train_expert", "mllm.models.families.classifier")  # cached, as libraries are

    # This process computes nothing: processes forked from it would lack the threads that it started.
    begun = argparse.Namespace(
        model=SPEC, checkpoint=None, data=folder, task="t", seed=3, threads=1, output=folder / "base"
    )
    child = forked(lambda: prepare_base.main(begun), folder / "base.log")
    assert os.waitpid(child, 0)[1] == 0, (folder / "base.log").read_text()[-2000:]

    def training_to(name: str, seconds: float) -> argparse.Namespace:
        return argparse.Namespace(
            base=folder / "base", data=folder, task="t", part={}, names=None, same=[], hyper=HYPER, checkpoints=folder / name / "checkpoints",
            checkpoint_seconds=seconds, threads=1, gpus=1, output=folder / name / "expert",
        )  # fmt: skip

    begin = time.monotonic()
    child = forked(lambda: train_expert.main(training_to("whole", 300)), folder / "whole.log")
    assert os.waitpid(child, 0)[1] == 0, (folder / "whole.log").read_text()[-2000:]
    step = (time.monotonic() - begin) / STEPS

    def saved() -> int:
        """Return the last step with a complete checkpoint; each step writes one."""
        whole = folder.glob("killed/checkpoints/*/checkpoint-*/whole")
        return max((int(file.parent.name.removeprefix("checkpoint-")) for file in whole), default=0)

    moments = random.Random(5)
    kills = 0
    while not (folder / "killed/expert").exists():
        child = forked(lambda: train_expert.main(training_to("killed", 0.0)), folder / "killed.log")
        ended = 0
        if kills < KILLS:
            # Kill by steps, however busy the machine is: before the first new checkpoint, and while one is written.
            target = saved() + moments.randint(0, 8)
            while not ended and saved() < target:
                time.sleep(step / 10)
                ended, status = os.waitpid(child, os.WNOHANG)
            if not ended:
                time.sleep(moments.uniform(0, 2) * step)
                os.kill(child, signal.SIGKILL)
        status = status if ended else os.waitpid(child, 0)[1]
        assert os.WIFSIGNALED(status) or status == 0, (folder / "killed.log").read_text()[-2000:]
        kills += os.WIFSIGNALED(status)
    print(json.dumps({"kills": kills, "seconds": step}))


def test_twenty_kills_at_any_moment_end_in_the_same_bytes(tmp_path):
    import subprocess

    numbers = range(len(TEXTS))
    frame = pl.DataFrame({"review_id": numbers, "group": numbers, "review": TEXTS, "label_t": [i % 2 for i in numbers]})
    write_split(tmp_path, ["bad", "good"], train=frame[:80], valid=frame[80:])
    done = subprocess.run([sys.executable, __file__, tmp_path], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    facts = json.loads(done.stdout.splitlines()[-1])
    log = (tmp_path / "killed.log").read_text()
    assert facts["kills"] >= KILLS / 2 and log.count("resuming from") >= KILLS / 4, facts
    whole, killed = ((tmp_path / name / "expert") for name in ("whole", "killed"))
    assert (killed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    cards = [json.loads((folder / "model.json").read_text()) for folder in (whole, killed)]
    assert cards[0]["validation"] == cards[1]["validation"] and len(cards[0]["validation"]) > 5
    assert not (tmp_path / "killed/checkpoints").exists()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    torment(Path(sys.argv[1]))
