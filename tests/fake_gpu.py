"""Fake GPUs: torch's fake tensors have a device and a shape, and no values.

An operation on tensors of two devices fails as on real ones. The value of a number is one, and a condition is false.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

READ = torch.from_numpy
aten = torch.ops.aten
NUMBER, NO = aten._local_scalar_dense.default, (aten.equal.default, aten.is_nonzero.default)
ONES, PICK = aten.unique_consecutive.default, aten.index.Tensor


class FakeGpu(FakeTensorMode):
    """All tensors made inside are fake, and may be put on ``cuda:0``, ``cuda:1``, …"""

    asked = 0
    """Count how often a value is read: on a GPU, each read waits for all queued work."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.asked += func is NUMBER or func in NO
        if func is NUMBER:
            return False if args[0].dtype is torch.bool else 1
        if func is ONES:  # of how many ends each text has
            return args[0].new_ones(1), args[0].new_ones(1), args[0].new_ones(1)
        if func is PICK and len(args[1]) == 1 and args[1][0].dtype is torch.bool:  # one of each row
            assert args[1][0].device == args[0].device
            return args[0].new_empty((args[0].shape[0], *args[0].shape[args[1][0].dim() :]))
        if func in NO:
            return False
        found = super().__torch_dispatch__(func, types, args, kwargs)
        for tensor in found if isinstance(found, tuple | list) else (found,):
            if isinstance(tensor, FakeTensor):
                tensor.constant = None  # single numbers have a value, which would be put on a real GPU with them
        return found


@contextlib.contextmanager
def fake_gpu() -> Iterator[FakeGpu]:
    """Make such a mode, in which numpy's arrays become fake, too."""
    mode = FakeGpu()
    torch.from_numpy = lambda array: mode.from_tensor(READ(array))
    try:
        with mode:
            yield mode
    finally:
        torch.from_numpy = READ


def put(model: Any, device: Any, done: dict[int, Any] | None = None) -> Any:
    """Do the work of ``Module.to``, which cannot change fake weights in place; shared weights stay shared."""
    done = {} if done is None else done
    for module in model.modules():
        for kept in (module._parameters, module._buffers):
            for name, tensor in kept.items():
                if tensor is not None and id(tensor) not in done:
                    here = tensor.detach().to(device)
                    done[id(tensor)] = (
                        torch.nn.Parameter(here, tensor.requires_grad)
                        if isinstance(tensor, torch.nn.Parameter)
                        else here
                    )
                    done[id(done[id(tensor)])] = done[id(tensor)]
                if tensor is not None:
                    kept[name] = done[id(tensor)]
    return model


def spread(model: Any, places: dict[str, int]) -> Any:
    """Put modules on several GPUs, with accelerate's hooks that bring a layer and its input together."""
    done: dict[int, Any] = {}
    for name, number in places.items():
        module = model.get_submodule(name)
        put(module, f"cuda:{number}", done)
        add_hook_to_module(
            module, AlignDevicesHook(execution_device=torch.device(f"cuda:{number}"), io_same_device=False)
        )
    model.hf_device_map = places
    return model
