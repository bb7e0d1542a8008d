"""Draw the weights of a module as transformers does."""

from typing import Any

from transformers import set_seed


def draw(model: Any, name: str, seed: int) -> None:
    """Draw a module's weights from a seed, as its architecture draws new ones, also if others were loaded into it."""
    module = model.get_submodule(name)
    for tensor in [module, *module.modules(), *module.parameters()]:
        tensor._is_hf_initialized = False  # transformers initialises nothing twice
    set_seed(seed)
    module.apply(model._init_weights)
