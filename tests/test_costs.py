"""Records of what predictions cost: written, read back, refused where they are of another version or damaged."""

import pytest

from mllm.core.errors import Failure
from mllm.prediction import costs


def test_costs_of_another_version_are_refused(tmp_path):
    path = tmp_path / "a.cost.json"
    costs.Cost(reviews=3, n_parameters=5, device="cpu").write(path)
    assert costs.read(path) == costs.Cost(reviews=3, n_parameters=5, device="cpu")
    for text, said in (
        (
            '{"n_parameters": 5}',
            "record of another version \\(found None, expected 1\\). Fix: delete .*a.cost.json and rerun",
        ),
        ('{"version": 2}', "found 2, expected 1"),
        ("[]", "found None, expected 1"),
        ('{"version": 1, "reviews": 3, "speed": 1}', "wrong: speed"),
        ('{"version": 1}', "wrong: reviews"),
        ("{", "not valid JSON"),
    ):
        path.write_text(text)
        with pytest.raises(Failure, match=said):
            costs.read(path)
