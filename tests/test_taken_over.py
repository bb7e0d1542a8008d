"""What finished predictions are found by: the weights' digest as their merge noted it, while nobody has touched them."""

import os
import shutil

import pytest

from mllm.core.files import write_json
from mllm.models import cards, checkpoint_files
from mllm.prediction import taken_over


@pytest.fixture
def model(tmp_path):
    """A merge's folder, as merge.py leaves it: weights, then the card."""
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
    """Or the two tests above would hold without it: a card of other weights is believed while the file is older."""
    noted = taken_over.identity(model)
    write_json(model / cards.FILE, {"weights": "0" * 64})
    assert taken_over.identity(model) != noted
    copy = shutil.copytree(model, model.parent / "copy")  # its weights are younger than its card, or as old
    (copy / checkpoint_files.WEIGHTS).touch()
    assert taken_over.identity(copy) == noted
