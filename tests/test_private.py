"""Private names of other libraries that the code uses: a release that renames one is seen here, with what to change."""

from importlib import import_module, metadata

import pytest

NAMES = [
    # package, version that the code was written for, module, attribute, where it is used and what to do without it
    ("mergekit", "0.1.5", "mergekit.merge_methods.registry", "get", "merging/methods: find how methods are looked up"),
    ("mergekit", "0.1.5", "mergekit.merge_methods.registry", "registered_methods", "merging/methods: list all methods"),
    ("mergekit", "0.1.5", "mergekit.merge_methods", "merge_state_dicts", "merging/mixture: merge by `linear` as merging/merge does"),
    *[("mergekit", "0.1.5", "mergekit.merge_methods.base", name, "merging/mergekit_private: import the new name there")
      for name in ("BasePolicy", "GroupMergeMethod", "InputContract", "MergeMethodSpec", "ParameterScope", "ParameterSpec", "TensorGroup")],
    ("mergekit", "0.1.5", "mergekit.merge_methods.generalized_task_arithmetic", "get_mask", "merging/task_vectors: elect signs there"),
    *[("mergekit", "0.1.5", "mergekit.sparsify", name, "merging/methods: thin task vectors there")
      for name in ("RescaleNorm", "rescaled_masked_tensor", "magnitude", "magnitude_outliers", "bernoulli")],
    *[("mergekit", "0.1.5", "mergekit.moe.router", name, "merging/mixture: make the router's weights there")
      for name in ("warn_degenerate_gates", "get_gate_params", "get_cheap_embedding", "get_hidden_states")],
    ("mergekit", "0.1.5", "mergekit.moe", "ALL_OUTPUT_ARCHITECTURES", "merging/mixture: find the writers of mixtures"),
    ("mergekit", "0.1.5", "mergekit.architecture", "arch_info_for_config", "merging/mixture: check by another way that no tensor is left out"),
    ("transformers", "5.23.0", "transformers.activations", "NewGELUActivation", "models/transformers_private: only slower without it"),
    ("transformers", "5.23.0", "transformers.PreTrainedModel", "_init_weights", "models/pretrained: draw heads by another way"),
    ("transformers", "5.23.0", "transformers.models.t5.modeling_t5.T5Attention", "_relative_position_bucket", "models/families/text2text: tree distances"),
    ("transformers", "5.23.0", "transformers.models.t5.modeling_t5.T5Attention", "compute_bias", "models/families/text2text: tree distances"),
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
