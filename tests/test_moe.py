"""Compare mixtures of experts with the mergekit-moe command, bit for bit, and check what must always hold."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import transformers
import yaml
from mergekit.merge_methods import merge_state_dicts
from mergekit.moe import router as mergekits_router
from mergekit.moe.config import Expert
from mergekit.scripts.moe import main as mergekit_moe
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from mllm.core.errors import Failure
from mllm.merging import mixture, router
from mllm.merging.mergekit_private import mixtures
from mllm.models import checkpoint_files, loading
from mllm.models.heads import label_config
from mllm.models.scratch import train_tokenizer
from tiny_models import CARD

LABELS = ["negative", "neutral", "positive"]
MEMBERS = ["a", "b", "c"]
TEXTS = [
    "some words to make a vocabulary of",
    "a text that is longer than the sixteen tokens it may have: words, words",
]
PROMPTS = {"a": ["some words", TEXTS[1]], "b": ["a vocabulary to make"], "c": ["words of some", " ", "to make"]}
ROPE = {
    "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
# Parts of each family's configuration that mergekit-moe must keep.
OWN = {
    "Llama": {"rope_parameters": ROPE, "rms_norm_eps": 1e-5, "head_dim": 16},
    "Mistral": {"sliding_window": 8},
    "Qwen2": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
    "Qwen3": {"head_dim": 16},
}
MODELS = [family + "ForSequenceClassification" for family in OWN] + ["LlamaForCausalLM"]


def tiny(architecture: str, **more):
    family = re.match("[A-Z][a-z]+[0-9]?", architecture)[0]
    config = getattr(transformers, f"{family}Config")(
        vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=32, pad_token_id=1, bos_token_id=0, eos_token_id=0,
        **label_config(LABELS), **OWN[family] | more,
    )  # fmt: skip
    return getattr(transformers, architecture)(config)


def make_models(architecture: str, folder: Path, **more) -> Path:
    """Make the folders of a base and three experts."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer(TEXTS * 3, 300, 16)
    model = tiny(architecture, **more)
    for name in ("base", *MEMBERS):
        with torch.no_grad():
            for tensor in model.parameters():
                tensor.add_(0.1 * torch.randn_like(tensor))
        checkpoint_files.save(model, tokenizer, folder / name, CARD)
    return folder


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """Architecture -> its models, made once."""
    made = {}

    def folder(architecture: str) -> Path:
        if architecture not in made:
            made[architecture] = make_models(architecture, tmp_path_factory.mktemp(architecture))
        return made[architecture]

    return folder


def recipe_of(out_dtype="float32", members=MEMBERS, **parameters) -> dict:
    parameters = {"gate_mode": "hidden", "experts_per_token": 2, "seed": 17, "prompts": 16, **parameters}
    return {"method": "moe", "members": members, "parameters": parameters, "base": "base", "out_dtype": out_dtype}


def build(models: Path, output: Path, recipe: dict | None = None, prompts=PROMPTS) -> dict[str, torch.Tensor]:
    recipe = recipe or recipe_of()
    mixture.build(recipe, {n: models / n for n in ("base", *recipe["members"])}, prompts, output)
    return load_file(output / "model.safetensors")


def load(folder: Path):
    auto = AutoModelForCausalLM if "CausalLM" in (folder / "config.json").read_text() else None
    auto = auto or AutoModelForSequenceClassification
    model, report = auto.from_pretrained(folder, use_safetensors=True, output_loading_info=True)
    assert not any(report.values()), report
    return model.eval()


def logits(model) -> torch.Tensor:
    """Return the logits of two texts, one of them padded."""
    ids = torch.randint(2, 300, (2, 14), generator=torch.Generator().manual_seed(5))
    ids[1, 9:] = 1
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=(ids != 1).long()).logits


def feed_forward(state: dict, layer: int, expert: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return one expert's gate, up and down projections, in either form that mergekit-moe writes."""
    start = f"model.layers.{layer}.mlp.experts."
    if start + "gate_up_proj" in state:
        return *state[start + "gate_up_proj"][expert].chunk(2), state[start + "down_proj"][expert]
    return tuple(state[f"{start}{expert}.{part}_proj.weight"] for part in ("gate", "up", "down"))


def average_of(models: Path) -> dict[str, torch.Tensor]:
    states = {n: load_file(models / n / "model.safetensors") for n in MEMBERS}
    return merge_state_dicts(states, "linear", parameters={"weight": 1.0}, dtype=torch.float32)


@pytest.mark.parametrize("architecture", MODELS)
def test_members_feed_forward_blocks_and_the_average_of_all_else(folder_of, tmp_path, architecture):
    models = folder_of(architecture)
    found = build(models, tmp_path / "moe")
    model = load(tmp_path / "moe")
    assert type(model).__name__ == mixture.mixture_of(models / "a")[1] == model.config.architectures[0]
    assert torch.isfinite(logits(model)).all()
    assert {f.name for f in (tmp_path / "moe").iterdir()} == {f.name for f in (models / "base").iterdir()} - {
        "model.json"
    }
    assert not list(tmp_path.glob(".moe-*"))
    # The base's configuration holds, whatever mergekit-moe changes in it.
    base = json.loads((models / "base/config.json").read_text())
    config = json.loads((tmp_path / "moe/config.json").read_text())
    assert {k: config.get(k) for k in base if k not in ("architectures", "model_type")} == {
        k: v for k, v in base.items() if k not in ("architectures", "model_type")
    }
    assert checkpoint_files.label_names(tmp_path / "moe") == LABELS
    assert (
        AutoTokenizer.from_pretrained(tmp_path / "moe").padding_side == "right"
    )  # mergekit-moe saves another tokenizer
    # Every tensor comes from a member, the average or the router.
    average = average_of(models)
    for name in [n for n in average if ".mlp." not in n]:
        torch.testing.assert_close(found.pop(name), average[name], rtol=0, atol=0)
    for expert, member in enumerate(MEMBERS):
        own = load_file(models / member / "model.safetensors")
        for layer in (0, 1):
            for part, tensor in zip(("gate", "up", "down"), feed_forward(found, layer, expert), strict=True):
                assert torch.equal(tensor, own[f"model.layers.{layer}.mlp.{part}_proj.weight"])
    for name in [n for n in found if ".shared_expert." in n]:
        scale = mixture.SHARED_SCALE if "down_proj" in name else 1.0
        assert torch.equal(found.pop(name), scale * average[name.replace("shared_expert.", "")])
    routers = {n: t for n, t in found.items() if ".experts." not in n}
    assert {n.split(".mlp.")[1] for n in routers} <= {"gate.weight", "shared_expert_gate.weight"}
    for tensor in routers.values():
        torch.testing.assert_close(tensor.norm(dim=-1), torch.ones(len(tensor)))


@pytest.mark.parametrize("mode", ["hidden", "cheap_embed", "random"])
@pytest.mark.parametrize("architecture", MODELS)
def test_a_mixture_of_the_same_model_is_that_model(folder_of, tmp_path, architecture, mode):
    for name in ("base", *MEMBERS):
        shutil.copytree(folder_of(architecture) / "a", tmp_path / name)
    build(tmp_path, tmp_path / "moe", recipe_of(gate_mode=mode))
    expected, mixture = logits(load(tmp_path / "a")), load(tmp_path / "moe")
    if architecture.startswith("Qwen2"):
        # The shared expert adds its output to the others': results are near, and equal without it.
        assert 0 < (logits(mixture) - expected).abs().max() < 0.15 * expected.abs().max()
        for layer in mixture.model.layers:
            layer.mlp.shared_expert.down_proj.weight.data.zero_()
    torch.testing.assert_close(logits(mixture), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"])
def test_mergekit_moe_makes_the_same_bits(folder_of, tmp_path, architecture):
    models = folder_of(architecture)
    shutil.copytree(models / "base", tmp_path / "average")
    save_file(average_of(models), tmp_path / "average/model.safetensors", metadata={"format": "pt"})
    document = {
        "base_model": str(tmp_path / "average"), "gate_mode": "random", "dtype": "float32", "experts_per_token": 2,
        "experts": [{"source_model": str(models / m)} for m in MEMBERS],
    }  # fmt: skip
    if architecture.startswith("Qwen2"):
        shared = {"source_model": str(tmp_path / "average"), "residual_scale": mixture.SHARED_SCALE}
        document["shared_experts"] = [shared]
    (tmp_path / "moe.yaml").write_text(yaml.safe_dump(document))
    command = [str(tmp_path / "moe.yaml"), str(tmp_path / "theirs"), "--random-seed", "17"]
    mergekit_moe.main(command, standalone_mode=False)
    ours, theirs = (
        build(models, tmp_path / "ours", recipe_of(gate_mode="random")),
        load_file(tmp_path / "theirs/model.safetensors"),
    )
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name


@pytest.mark.parametrize("mode", router.GATE_MODES)
def test_routers_are_mergekits(folder_of, tmp_path, mode):
    """Compare routers where padding and start tokens make no difference; the command's are in bfloat16."""
    models = folder_of("LlamaForCausalLM")
    prompts = {"a": ["some words", "a text that is longer"], "b": ["a vocabulary"], "c": ["to make", "it may have"]}
    if mode == "hidden_avg":  # mergekit's average includes the padding
        prompts = {name: texts[:1] for name, texts in prompts.items()}
    tokenizer = AutoTokenizer.from_pretrained(models / "base")
    found = router.weights(mode, 17, models / "a", tokenizer, prompts)
    tokenizer.bos_token, tokenizer.padding_side = None, "left"
    reference = mixtures.reference(models / "a")
    experts = [Expert(source_model=reference, positive_prompts=p) for p in prompts.values()]
    torch.manual_seed(17)
    expected = mergekits_router.get_gate_params(reference, tokenizer, experts, mode=mode, device="cpu")
    assert found.shape == expected.shape == (2, 3, 32)
    assert found.dtype == torch.float32
    loose = mode.startswith("hidden")
    torch.testing.assert_close(found, expected.float(), rtol=0, atol=0.02 if loose else 1e-6)


def test_texts_are_cut_where_the_experts_cut_them(folder_of):
    models = folder_of("LlamaForCausalLM")
    tokenizer = AutoTokenizer.from_pretrained(models / "base")
    assert len(tokenizer(TEXTS[1])["input_ids"]) > tokenizer.model_max_length == 16
    found, same, other = (
        router.weights("hidden_avg", 17, models / "a", tokenizer, {"a": [text], "b": ["words"]})
        for text in (TEXTS[1], TEXTS[1] + " more", "more " + TEXTS[1])
    )
    assert torch.equal(found, same)
    assert not torch.equal(found, other)


def test_the_order_of_many_experts(folder_of, tmp_path):
    """With more than ten layers, 10 comes after 9, not after 1."""
    models, members = tmp_path / "models", [f"expert-{i:02d}" for i in range(11)]
    shutil.copytree(folder_of("MistralForSequenceClassification") / "base", models / "base")
    for i, name in enumerate(members):
        shutil.copytree(models / "base", models / name)
        state = load_file(models / name / "model.safetensors")
        state["model.layers.1.mlp.up_proj.weight"].fill_(i)
        save_file(state, models / name / "model.safetensors", metadata={"format": "pt"})
    found = build(models, tmp_path / "moe", recipe_of(members=members, gate_mode="random"))
    assert [feed_forward(found, 1, i)[1][0, 0].item() for i in range(11)] == list(range(11))


def test_the_same_bytes_again_and_nothing_printed(folder_of, tmp_path, capfd):
    models = folder_of("Qwen2ForSequenceClassification")
    for mode in ("hidden_avg", "uniform_random"):
        folders = [tmp_path / f"{mode}-{i}" for i in range(3)]
        for folder, seed in zip(folders, (17, 17, 18), strict=True):
            build(models, folder, recipe_of(gate_mode=mode, seed=seed))
        first, again, other = ((f / "model.safetensors").read_bytes() for f in folders)
        assert first == again
        assert (first == other) == (mode == "hidden_avg")  # hidden_avg draws nothing
        assert (folders[0] / "config.json").read_bytes() == (folders[1] / "config.json").read_bytes()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("out_dtype", ["bfloat16", "float16"])
def test_rounded_at_the_end(folder_of, tmp_path, out_dtype):
    models = folder_of("Qwen3ForSequenceClassification")
    full = build(models, tmp_path / "full")
    rounded = build(models, tmp_path / "rounded", recipe_of(out_dtype))
    assert all(torch.equal(rounded[name], tensor.to(getattr(torch, out_dtype))) for name, tensor in full.items())
    assert load(tmp_path / "rounded").dtype == getattr(torch, out_dtype)
    model, _ = loading.load_model(tmp_path / "rounded")
    assert torch.isfinite(logits(model)).all()


def test_a_router_that_tells_nothing_apart_is_told(folder_of, tmp_path, caplog):
    prompts = {"a": ["some words"], "b": ["of words"], "c": ["a words"]}  # the same last token
    build(folder_of("LlamaForSequenceClassification"), tmp_path / "moe", prompts=prompts)
    (message,) = [r.getMessage() for r in caplog.records]
    assert "mixture of a, b, c: mergekit-moe warns: layer 0 has degenerate routing parameters" in message
    assert "\n" not in message
    # A shared expert has all the others' texts, which is no error.
    caplog.clear()
    distinct = {"a": ["some words"], "b": ["to make"], "c": ["it may"]}
    build(folder_of("Qwen2ForSequenceClassification"), tmp_path / "shared", prompts=distinct)
    assert not caplog.records


# ── What must be refused ──


def foreign(architecture: str):
    def change(models: Path) -> None:
        file = models / "b/config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "architectures": [architecture]}))

    return change


def all_foreign(architecture: str):
    def change(models: Path) -> None:
        for name in ("base", *MEMBERS):
            (models / name / "config.json").write_text(json.dumps({"architectures": [architecture]}))

    return change


def sliding(models: Path) -> None:
    for file in models.glob("*/config.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "use_sliding_window": True}))


def not_finite(models: Path) -> None:
    state = load_file(models / "c/model.safetensors")
    state["model.norm.weight"][0] = float("inf")
    save_file(state, models / "c/model.safetensors", metadata={"format": "pt"})


def large(models: Path) -> None:
    for name in MEMBERS:
        state = load_file(models / name / "model.safetensors")
        state["score.weight"][0, 0] = 1e5
        save_file(state, models / name / "model.safetensors", metadata={"format": "pt"})


def with_biases(models: Path) -> None:
    shutil.rmtree(models)
    make_models("LlamaForSequenceClassification", models, attention_bias=True)


SAME = {name: ["one text"] for name in MEMBERS}
REFUSALS = {
    "one member": (None, recipe_of(members=["a"]), PROMPTS, "found 1 members, expected at least 2"),
    "too many": (None, recipe_of(experts_per_token=4), PROMPTS, "experts_per_token is 4, expected 1 to 3"),
    "none": (None, recipe_of(experts_per_token=0), PROMPTS, "experts_per_token is 0, expected 1 to 3"),
    "mode": (None, recipe_of(gate_mode="best"), PROMPTS, "gate_mode is 'best', expected one of hidden, hidden_avg"),
    "GPT-2": (all_foreign("GPT2ForSequenceClassification"), recipe_of(), PROMPTS,
              "base/config.json: no mixture of experts can be made .found GPT2ForSequenceClassification, expected one of "
              r"LlamaForSequenceClassification, .*Qwen3ForCausalLM\)\. Fix: blend the experts' predictions instead"),
    "BERT": (all_foreign("BertForSequenceClassification"), recipe_of(), PROMPTS, "made .found BertForSequenceClass"),
    "T5": (all_foreign("T5ForSequenceClassification"), recipe_of(), PROMPTS, "can be made .found T5ForSequenceClass"),
    "two architectures": (foreign("Qwen2ForSequenceClassification"), recipe_of(), PROMPTS,
                          r"b/config.json: architectures is \['Qwen2ForSequenceClassification'\], in .* blend their predictions"),
    "classifier and language model": (foreign("LlamaForCausalLM"), recipe_of(), PROMPTS, "architectures is .*LlamaForCausalLM"),
    "sliding windows": (sliding, recipe_of(), PROMPTS, "base/config.json: use_sliding_window is on"),
    "biases": (with_biases, recipe_of(), PROMPTS, r"would leave out 8 tensors, the first: model\.layers\.0\.self_attn\.k"),
    "no texts": (None, recipe_of(), {"a": ["x"], "b": ["y"]}, "no text for c; gate_mode hidden needs one"),
    "empty texts": (None, recipe_of(gate_mode="cheap_embed"), {**PROMPTS, "b": ["", " "]}, "no text for b"),
    "the same texts": (None, recipe_of(), SAME, "all members have the same texts"),
    "too large for float16": (large, recipe_of("float16"), PROMPTS, "score.weight is not finite in float16"),
    "not finite": (not_finite, recipe_of(), PROMPTS, "c: model.norm.weight holds NaN or infinite values"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSALS)
def test_refused_in_words_and_nothing_left(folder_of, tmp_path, what):
    change, recipe, prompts, message = REFUSALS[what]
    models = folder_of("LlamaForSequenceClassification")
    if change:
        models = shutil.copytree(models, tmp_path / "models")
        change(models)
    with pytest.raises(Failure, match=message):
        build(models, tmp_path / "out/moe", recipe, prompts)
    assert not list(tmp_path.glob("out/*"))
    assert not list(tmp_path.glob("out/.*"))


def test_one_folder_for_all_is_refused_as_mergekit_does(folder_of, tmp_path):
    models = folder_of("LlamaForSequenceClassification")
    folders = {"base": models / "base", **dict.fromkeys(MEMBERS, models / "a")}
    with pytest.raises(Failure, match="all members are the same folder"):
        mixture.build(recipe_of(), folders, PROMPTS, tmp_path / "moe")
