"""Read and write weights one tensor at a time: a merge never holds more than one tensor of each member.

The safetensors library maps complete files, whose pages stay in memory until the end. It writes only tensors that are
all in memory.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mllm.core.errors import Failure
from mllm.models import checkpoint_files

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
NAMES = {dtype: name for name, dtype in DTYPES.items()}


class Weights:
    """The tensors of a checkpoint by name, read on demand.

    Raises:
        Failure: the checkpoint is incomplete, or a tensor has a type that cannot be merged.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._entries: dict[str, tuple[Path, int, dict[str, Any]]] = {}
        for file, header, start in checkpoint_files.check_whole(folder):
            for name, entry in header.items():
                if name != "__metadata__":
                    self._entries[name] = (file, start, entry)
        unknown = {n: e["dtype"] for n, (_, _, e) in self._entries.items() if e["dtype"] not in DTYPES}
        for name, dtype in unknown.items():
            raise Failure(f"{folder}: {name} is {dtype}, expected one of {', '.join(DTYPES)}")

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._entries[name][2]["shape"])

    def dtype(self, name: str) -> torch.dtype:
        return DTYPES[self._entries[name][2]["dtype"]]

    def read(self, name: str) -> torch.Tensor:
        """Read one tensor.

        Raises:
            Failure: it holds NaN or infinite values.
        """
        file, start, entry = self._entries[name]
        begin, end = entry["data_offsets"]
        if begin == end:
            return torch.empty(self.shape(name), dtype=self.dtype(name))
        # The page cache's own pages, this tensor's alone: copies would need as many fresh pages, which cost more than merging.
        data = torch.from_numpy(np.memmap(file, np.uint8, "c", start + begin, end - begin))
        tensor = data.view(self.dtype(name)).reshape(self.shape(name))
        check_finite(tensor, f"{self.folder}: {name}")
        return tensor


def check_finite(tensor: torch.Tensor, what: str) -> None:
    if tensor.is_floating_point() and tensor.numel():
        low, high = torch.aminmax(tensor)  # both are NaN where any value is; a hundred times faster than isfinite
        if not (torch.isfinite(low) and torch.isfinite(high)):
            raise Failure(f"{what} holds NaN or infinite values")


def write(
    file: Path, layout: dict[str, tuple[torch.dtype, tuple[int, ...]]], tensors: Iterable[tuple[str, torch.Tensor]]
) -> str:
    """Write a safetensors file, each tensor as soon as it comes.

    Args:
        file: the file to write.
        layout: type and shape of each tensor.
        tensors: all tensors, in the order of the layout.

    Returns:
        SHA-256 of the file, hexadecimal.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, (dtype, shape) in layout.items():
        size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        header[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [position, position + size]}
        position += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with file.open("wb") as stream:

        def put(data: Any) -> None:
            digest.update(data)
            stream.write(data)

        put(len(text).to_bytes(8, "little") + text)
        for (name, tensor), expected in zip(tensors, layout, strict=True):
            if name != expected or (tensor.dtype, tuple(tensor.shape)) != layout[name]:
                raise ValueError(
                    f"{name}: not the next tensor of the layout (found {tensor.dtype} {tuple(tensor.shape)}, expected"
                    f" {expected} {layout[expected]})"
                )
            put(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
