"""Test how finished predictions are found: by the weights' digest in the merge's card, until weights change."""

import os
import shutil

import pytest

from mllm.core.files import write_json
from mllm.models import cards, checkpoint_files
from mllm.prediction import taken_over


@pytest.fixture
def model(tmp_path):
    """Make a merge's folder as merge.py does: weights, then the card."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / checkpoint_files.WEIGHTS).write_bytes(b"weights")
    write_json(folder / cards.FILE, {"weights": checkpoint_files.digest(folder)})
    return folder


def test_the_card_s_digest_is_the_file_s(model):
    noted = taken_over.identity(model, "asked")
    (model / cards.FILE).unlink()
    assert taken_over.identity(model, "asked") == noted


def test_a_file_touched_since_is_read_whatever_its_times_say(model):
    noted = taken_over.identity(model)
    weights = model / checkpoint_files.WEIGHTS
    times = weights.stat()
    weights.write_bytes(b"others.")
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert taken_over.identity(model) != noted


def test_the_digest_is_taken_from_the_card(model):
    """Else the two tests above would prove nothing: a card's digest counts while the weights are older than the card."""
    noted = taken_over.identity(model)
    write_json(model / cards.FILE, {"weights": "0" * 64})
    assert taken_over.identity(model) != noted
    copy = shutil.copytree(model, model.parent / "copy")  # its weights are newer than its card, or as old
    (copy / checkpoint_files.WEIGHTS).touch()
    assert taken_over.identity(copy) == noted
