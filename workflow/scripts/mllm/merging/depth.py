"""Compute parameter values that change with depth."""

import re
from typing import Any

from mllm.experiment.layered import is_layered

DEPTH_KEYS = ("num_hidden_layers", "n_layer", "num_layers", "num_decoder_layers", "n_layers")


class Depth:
    """The layer that a tensor belongs to, of how many; or no layer.

    Args:
        names: of all tensors.
        config: the model's configuration; its numbers of layers distinguish layers from other numbered parts.
    """

    def __init__(self, names: list[str], config: dict[str, Any]):
        numbered = [m for m in (re.match(r"(.+?\.)(\d+)\.", name) for name in names) if m]
        counts = {prefix: 1 + max(int(m[2]) for m in numbered if m[1] == prefix) for prefix in {m[1] for m in numbered}}
        known = {config[key] for key in DEPTH_KEYS if key in config}
        self.layers = {prefix: count for prefix, count in sorted(counts.items()) if count in known}

    def at(self, value: Any, name: str) -> Any:
        """Return a parameter's value for one tensor, interpolated between the given values as in mergekit."""
        if not is_layered(value):
            return value
        match = re.match(r"(.+?\.)(\d+)\.", name)
        if not match or match[1] not in self.layers:
            return value["rest"]
        count, given = self.layers[match[1]], value["layers"]
        place = (int(match[2]) / (count - 1) if count > 1 else 1) * (len(given) - 1)
        left = int(place)
        part = place - left
        return (1 - part) * given[left] + part * given[min(left + 1, len(given) - 1)]

    def setting(self, value: Any, body: str = "") -> Any:
        """Return the parameter as mergekit's configuration has it, for tensors whose names lack the prefix ``body``."""
        if not is_layered(value):
            return value
        return [{"filter": prefix.removeprefix(body), "value": value["layers"]} for prefix in self.layers] + [
            {"value": value["rest"]}
        ]


def _of(value: Any, member: str) -> Any:
    return value[member] if isinstance(value, dict) and not is_layered(value) else value


def _varies(value: Any) -> bool:
    return is_layered(value) or (isinstance(value, dict) and any(map(is_layered, value.values())))
