"""Test the resources that jobs request: shapes are read from real files, amounts have the right magnitude."""

import json

import pytest
import torch
from safetensors.torch import save_file

from mllm.execution import expected_time, preflight, resources, slurm_resources
from mllm.experiment.schema import Task

XL = resources.Shape(1_557_611_200, 48, 1600)


def test_a_shape_is_read_off_a_checkpoint(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"n_embd": 8, "n_layer": 3, "dtype": "bfloat16"}))
    save_file({"a": torch.zeros(1000, 100, dtype=torch.bfloat16)}, tmp_path / "model.safetensors")
    shape = resources.shape_of([tmp_path / "absent", tmp_path])
    assert (shape.layers, shape.width) == (3, 8)
    assert shape.parameters == pytest.approx(100_000, rel=0.01)
    assert resources.shape_of([]) == resources.GPT2


def test_a_scratch_model_s_shape_is_that_of_the_model_made(tmp_path):
    from transformers import GPT2Config, GPT2ForSequenceClassification

    class Entry:
        source, layers, width, vocabulary = "scratch", 6, 128, 4000

    model = GPT2ForSequenceClassification(GPT2Config(n_layer=6, n_embd=128, n_head=2, vocab_size=4000))
    assert resources.shape_of([], Entry).parameters == pytest.approx(model.num_parameters(), rel=0.1)


def test_reviews_are_counted_by_the_size_of_files_until_they_are_split(tmp_path):
    class Data:
        train, test = str(tmp_path / "train.tsv"), str(tmp_path / "test.tsv")

    for name in ("train.tsv", "test.tsv"):
        (tmp_path / name).write_text("1\tdrug\tPain\t" + "a" * 480 + "\n", encoding="utf-8")
    split = tmp_path / "split.json"
    assert resources.review_rows(Data, split) == 100  # files may be small
    (tmp_path / "train.tsv").write_text(("1\tdrug\tPain\t" + "a" * 480 + "\n") * 2000, encoding="utf-8")
    assert 2001 <= resources.review_rows(Data, split) <= 4002
    split.write_text(json.dumps({"rows": {"train": 7, "test": 3}}))
    assert resources.review_rows(Data, split) == 10


def test_a_large_reference_needs_a_large_gpu_and_a_small_expert_does_not():
    small = resources.train_gpu_mb(resources.GPT2, batch=16, length=512)
    large = resources.train_gpu_mb(XL, batch=16, length=512)
    assert small < 24 * 1024  # an A5000
    assert 40 * 1024 < large < 141 * 1024  # more than an A100-40, less than an H200
    # Weights, gradients and Adam's moments alone have 16 bytes per parameter.
    assert large > 16 * XL.parameters / 2**20


def test_needs_grow_with_what_they_depend_on():
    assert resources.train_mb(XL, 1000) > resources.train_mb(resources.GPT2, 1000)
    assert resources.merge_mb(resources.GPT2, 10) > resources.merge_mb(resources.GPT2, 2) > 4 * resources.GPT2.mb
    assert resources.predict_minutes(XL, 50_000) > resources.predict_minutes(resources.GPT2, 50_000)
    assert resources.train_minutes(resources.GPT2, 2e7) > resources.train_minutes(resources.GPT2, 1e6)
    assert resources.data_mb(200_000) > resources.data_mb(2000)


@pytest.mark.parametrize(
    ("gpu_mb", "model", "partition"),
    [(9000, "A5000", "b"), (30_000, "A100", "a,b"), (70_000, "H200", "c"), (500_000, "H200", "c")],
)
def test_a_job_takes_the_first_gpu_that_holds_it(gpu_mb, model, partition):
    asked = slurm_resources.choose_gpu(
        {"gpu": 1, "gpu_mb": gpu_mb, "slurm_partition": "low", "gpu_types": "A5000:24@b A100:40@a,b H200:141@c"}
    )
    assert (asked["gpu_model"], asked["slurm_partition"]) == (model, partition)


def test_gres_any_type_and_cpu_jobs():
    asked = slurm_resources.choose_gpu({"gpu": 1, "gpu_mb": 50_000, "gpu_types": "gres/l40s:48@gpu gres/h100:80@large"})
    assert (asked["gres"], asked["gpu"], asked["slurm_partition"]) == ("gpu:h100:1", 1, "large")
    asked = slurm_resources.choose_gpu({"gpu": 1, "gpu_mb": 1000, "gpu_types": "any:40@gpu"})
    assert "gpu_model" not in asked and asked["slurm_partition"] == "gpu"
    asked = slurm_resources.choose_gpu({"gpu": 0, "slurm_partition": "low", "gpu_types": "any:40@gpu"})
    assert asked["slurm_partition"] == "low"


def test_several_gpus_are_asked_for_on_one_node_and_share_the_batch():
    asked = slurm_resources.choose_gpu({"gpu": 4, "gpu_mb": 1000, "gpu_types": "A100:40@a"})
    assert (asked["gpu"], asked["nodes"], asked["gpu_model"]) == (4, 1, "A100")
    assert resources.predict_gpu_mb(XL, 4) < resources.predict_gpu_mb(XL) / 2


def test_a_misspelt_gpu_list_says_what_was_expected():
    with pytest.raises(slurm_resources.WorkflowError, match="found 'A100@gpu', expected TYPE:GB@PARTITION"):
        slurm_resources.parse_types("A100@gpu")
    with pytest.raises(slurm_resources.WorkflowError, match=r"found 'any:40@gpu', expected gpu_types\. Fix: rename it"):
        slurm_resources.choose_gpu({"gpu": 1, "gpus": "any:40@gpu"})


def test_the_shipped_profile_s_gpus_are_readable():
    import yaml

    from conftest import ROOT

    profile = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())
    types = slurm_resources.parse_types(profile["default-resources"]["gpu_types"])
    assert [t[0] for t in types] == ["A5000", "A100", "H200"]


def test_scratch_takes_results_and_caches(tmp_path, monkeypatch):
    from mllm.execution import environment

    (tmp_path / "clone").mkdir()
    monkeypatch.chdir(tmp_path / "clone")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    environment.use_scratch()
    assert list((tmp_path / "clone").iterdir()) == []  # no effect without the variable
    monkeypatch.setenv("MLLM_SCRATCH", str(tmp_path / "scratch"))
    environment.use_scratch()
    (tmp_path / "clone/results/x").write_text("x")
    assert (tmp_path / "scratch/mllm/results/x").read_text() == "x"
    monkeypatch.delenv("XDG_CACHE_HOME")  # set by use_scratch


def test_room_for_the_grid_is_asked_for_before_it_starts(tmp_path):
    kept = resources.disk_mb([resources.GPT2] * 6, resources.GPT2, merges=100, keep_all=True)
    passing = resources.disk_mb([resources.GPT2] * 6, resources.GPT2, merges=100, keep_all=False)
    assert 100 * resources.GPT2.mb < kept and passing < kept / 1.5
    assert preflight.disk(tmp_path / "not/there", 1) == []
    (line,) = preflight.disk(tmp_path, 10**9)
    assert "expected about 1,000,000,000 MB" in line and str(tmp_path) in line


def test_scoring_asks_for_memory_by_classes():
    """Requests cover one candidate's measured memory with 10, 200 and 500 classes."""
    for rows, classes, measured in ((5000, 10, 202), (5000, 200, 350), (3000, 500, 2143)):
        assert measured * 1.2 < resources.score_mb(rows, 1, classes) < measured + 1000
    tasks = [Task(name="a", label="rating"), Task(name="b", label="condition", top=30)]
    assert resources.classes_of(tasks) == 30
    many = {f"c{i}": [i] for i in range(200)}
    assert resources.classes_of([*tasks, Task(name="c", column="x", classes=many)]) == 200


def test_a_training_s_expected_operations_count_what_it_reads_and_trains():
    """Trained weights take six operations per parameter and token; frozen ones take two, since their states are kept."""
    shape = resources.Shape(30_000_000, 6, 384)  # 10.6 million without the embeddings
    whole = expected_time.training({"epochs": 4.0, "batch_size": 16}, {}, shape, 1000, 64)
    assert whole == {"operations": 6 * 4000 * 12 * 6 * 384**2 * 64, "steps": 250}
    frozen = expected_time.training({"epochs": 4.0, "batch_size": 16, "freeze": 3}, {}, shape, 1000, 64)
    assert frozen["operations"] == pytest.approx(whole["operations"] / 2 + 2 * 1000 * 12 * 3 * 384**2 * 64)
    assert (
        expected_time.training({"epochs": 1.0, "batch_size": 16}, {"shard": 0, "of": 4}, shape, 1000, 64)["steps"]
        == 250 / 16
    )
    assert expected_time.training({"steps": 7, "batch_size": 16}, {}, shape, 1000, 64)["steps"] == 7
