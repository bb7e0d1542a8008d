"""Check the private names of other libraries that the code uses; if a release renames one, say what to change."""

import ast
from importlib import import_module, metadata

import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module

from conftest import SCRIPTS
from mllm.models.transformers_private import activations, attention, devices, heads
from tiny_models import tiny_bert, tiny_gpt2

NAMES = [
    # package, version that the code was written for, module, attribute, where it is used and what to do without it
    ("mergekit", "0.1.5", "mergekit.merge_methods.registry", "get", "merging/methods: find how methods are looked up"),
    ("mergekit", "0.1.5", "mergekit.merge_methods.registry", "registered_methods", "merging/methods: list all methods"),
    ("mergekit", "0.1.5", "mergekit.merge_methods", "merge_state_dicts", "merging/mixture: merge by `linear` as merging/merge does"),
    *[("mergekit", "0.1.5", "mergekit.merge_methods.base", name, "merging/mergekit_private/methods: import the new name there")
      for name in ("BasePolicy", "GroupMergeMethod", "InputContract", "MergeMethodSpec", "ParameterScope", "ParameterSpec", "TensorGroup")],
    ("mergekit", "0.1.5", "mergekit.merge_methods.generalized_task_arithmetic", "get_mask", "merging/task_vectors: elect signs there"),
    *[("mergekit", "0.1.5", "mergekit.sparsify", name, "merging/methods: thin task vectors there")
      for name in ("RescaleNorm", "rescaled_masked_tensor", "magnitude", "magnitude_outliers", "bernoulli")],
    *[("mergekit", "0.1.5", "mergekit.moe.router", name, "merging/mergekit_private/mixtures: make the router's weights there")
      for name in ("warn_degenerate_gates", "get_gate_params", "get_cheap_embedding", "get_hidden_states")],
    ("mergekit", "0.1.5", "mergekit.moe", "ALL_OUTPUT_ARCHITECTURES", "merging/mergekit_private/mixtures: find the writers of mixtures"),
    ("mergekit", "0.1.5", "mergekit.architecture", "arch_info_for_config", "merging/mergekit_private/mixtures: check by another way that no tensor is left out"),
    ("transformers", "5.23.0", "transformers.activations", "NewGELUActivation", "models/transformers_private/activations: only slower without it"),
    ("transformers", "5.23.0", "transformers.PreTrainedModel", "warn_if_padding_and_no_attention_mask", "models/transformers_private/waiting: only slower on GPUs"),
    ("transformers", "5.23.0", "transformers.masking_utils", "find_packed_sequence_indices", "models/transformers_private/waiting: only slower on GPUs"),
    ("transformers", "5.23.0", "transformers.PreTrainedModel", "_init_weights", "models/transformers_private/heads: draw them by another way"),
    ("transformers", "5.23.0", "transformers.PreTrainedModel", "_keys_to_ignore_on_load_unexpected", "models/transformers_private/names: nothing is passed over"),
    ("transformers", "5.23.0", "transformers.models.t5.modeling_t5.T5Attention", "_relative_position_bucket", "models/transformers_private/attention: T5's distances"),
    ("transformers", "5.23.0", "transformers.models.t5.modeling_t5.T5Attention", "compute_bias", "models/transformers_private/attention: T5's distances"),
    ("transformers", "5.23.0", "transformers.PreTrainedConfig", "_attn_implementation", "models/transformers_private/attention: fused"),
    ("polars", "2.1.0", "_polars_runtime_32._polars_runtime", "__register_startup_deps", "execution/warm_modules: only slower without it"),
]  # fmt: skip


@pytest.mark.parametrize(("package", "version", "module", "name", "change"), NAMES)
def test_a_private_name_is_there(package, version, module, name, change):
    try:
        holder = import_module(module)
    except ImportError:
        parent, _, attribute = module.rpartition(".")
        holder = getattr(import_module(parent), attribute)
    installed = metadata.version(package)
    assert hasattr(holder, name), (
        f"{package} {installed} has no {module}.{name} (written for {version}). Change {change}"
    )


GUARDED = (
    "mergekit_private", "transformers_private", "snakemake_patches.py", "snakemake_speed.py", "slurm_plugin.py", "warm_child.py",
)  # fmt: skip
"""The one folder or file per library that may use its private names."""
STANDARD = {"_exit"}  # os._exit is documented


def test_private_names_are_used_in_guarded_modules_alone():
    for path in SCRIPTS.rglob("*.py"):
        if any(name in path.parts for name in GUARDED):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            own = (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id in ("self", "cls")
            )
            names = [node.attr] if isinstance(node, ast.Attribute) and not own else []
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr", "setattr"):
                names += [a.value for a in node.args[1:2] if isinstance(a, ast.Constant)]
            private = [n for n in names if n.startswith("_") and not n.startswith("__") and n not in STANDARD]
            assert not private, f"{path}, line {node.lineno}: {private[0]}. Put it into a module of {GUARDED}"


def test_a_module_is_drawn_again_whatever_was_loaded():
    model = tiny_bert()
    with torch.no_grad():
        model.classifier.weight.fill_(1)
    heads.draw(model, "classifier", 3)
    first = model.classifier.weight.clone()
    assert first.std() > 0
    heads.draw(model, "classifier", 3)
    assert torch.equal(model.classifier.weight, first)


def test_other_private_parts_do_what_they_are_used_for():
    model = tiny_gpt2()
    activations.fuse_gelu(model)
    assert [type(block.mlp.act) for block in model.transformer.h] == [torch.nn.GELU] * 2
    assert attention.fused(model)
    layer = torch.nn.Linear(1, 1)
    assert not devices.hooked(layer)
    add_hook_to_module(layer, AlignDevicesHook(execution_device="cpu"))
    assert devices.hooked(layer)
