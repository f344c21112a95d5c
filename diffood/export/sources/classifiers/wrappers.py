"""Takes off what training puts around a module, and refuses modules that cannot be exported again."""

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from diffood.errors import ExportError

_WRAPPERS = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)  # each computes its `module`
# What torch.compile and activation checkpointing call the only child of their wrappers.
_INNER = ("_orig_mod", "_checkpoint_wrapped_module")
_COMPILED = "_torchdynamo_orig_callable"  # of a function that torch.compile made


class Eager(nn.Module):
    """Runs a module in the precision of its weights and without torch.compile, whatever its forward asks for."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> Any:
        """See the module."""
        with torch.compiler.set_stance("force_eager"), without_autocast():
            return self.model(x)


def unwrap_module(model: nn.Module, origin: str) -> nn.Module:
    """The module without the wrappers of DataParallel, torch.compile, weight averaging and activation checkpointing.

    Its submodules are unwrapped in place. Raises ExportError for TorchScript, and for parameters without values.
    """
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise ExportError(
                f"{origin} {f'holds TorchScript ({name})' if name else 'is TorchScript'}, which torch does not export "
                "again. Return the module that it was made from, with its weights, torch.jit.load(FILE).state_dict(); "
                "without the module's code write an ONNX file and give it as onnx:net.onnx: torch.onnx.export("
                "torch.jit.load(FILE), x, 'net.onnx', dynamo=False, input_names=['x'], dynamic_axes={'x': {0: 'b'}})."
            )
    model = _unwrap(model)
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if value.device.type == "meta":
            raise ExportError(f"{name!r} of {origin} is on the device meta and has no values; build it on the CPU.")
    return model.cpu()


def _unwrap(module: nn.Module) -> nn.Module:
    if isinstance(module, _WRAPPERS):
        return _unwrap(module.module)
    children = dict(module.named_children())
    for name in _INNER:
        if list(children) == [name]:
            return _unwrap(children[name])
    for name, child in children.items():
        inner = _unwrap(child)
        if inner is not child:
            setattr(module, name, inner)
    module._compiled_call_impl = None  # of module.compile()
    return module


def run_eagerly(model: nn.Module, x: torch.Tensor) -> tuple[Any, bool]:
    """What a module returns in full precision, not compiled, and whether it has to be wrapped in `Eager` for that."""
    with torch.no_grad(), torch.compiler.set_stance("force_eager"), without_autocast() as entered:
        output = model(x)
    return output, bool(entered) or any(_is_compiled(module) for module in model.modules())


def _is_compiled(module: nn.Module) -> bool:
    return hasattr(module.forward, _COMPILED) or hasattr(getattr(module.forward, "__func__", None), _COMPILED)


@contextlib.contextmanager
def without_autocast() -> Iterator[list[str]]:
    """While inside, torch.autocast does nothing; yields the devices for which it was asked."""
    entered: list[str] = []

    def enter(self: torch.autocast) -> torch.autocast:
        entered.append(self.device)
        return self

    with patch.multiple(torch.autocast, __enter__=enter, __exit__=lambda *_: False):
        yield entered
