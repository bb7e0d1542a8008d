"""Keep transformers from making the host wait for the GPU."""

from typing import Any

from mllm.core.messages import log


def wait_for_nothing(model: Any) -> None:
    """Keep transformers from reading tokens and positions in the middle of a pass, for which the host waits for the GPU.

    It would warn of padding without a mask, and look for several texts in one row. Here, a mask is left out only if
    nothing sees the padding, and each row is one text. This is only a speed-up: names that a release has changed are
    left as they are.
    """
    from transformers import masking_utils

    for module in model.modules():
        if hasattr(module, "warn_if_padding_and_no_attention_mask"):
            module.warn_if_padding_and_no_attention_mask = _nothing
    if hasattr(masking_utils, "find_packed_sequence_indices"):
        masking_utils.find_packed_sequence_indices = _nothing
    else:
        log.info("transformers no longer has find_packed_sequence_indices: some models wait for the GPU in each batch")


def _nothing(*_: Any) -> None:
    pass
