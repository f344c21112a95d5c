"""Finds the penultimate features of a module that returns logits alone: what goes into its last layer."""

import torch
from torch import nn

from diffood.errors import ExportError


class WithFeatures(nn.Module):
    """Adds the input of a layer, a mean over its positions where it has some, to a module that returns logits alone.

    Attributes:
        model: The module.
        layer: Name of the layer.
        gives_last_output: Whether the layer's output is returned as logits, in place of the module's own.
    """

    def __init__(self, model: nn.Module, layer: str) -> None:
        super().__init__()
        self.model, self.layer, self.gives_last_output = model, layer, False
        self._seen: list[tuple[torch.Tensor, torch.Tensor]] = []
        head = model.get_submodule(layer)
        self.convolution = isinstance(head, nn.Conv2d)
        head.register_forward_hook(lambda _, inputs, output: self._seen.append((inputs[0], output)))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (logits, features [B, D])."""
        logits, features, last = self._run(x)
        return last if self.gives_last_output else logits, features

    def last_output(self, x: torch.Tensor) -> torch.Tensor:
        """Return the layer's output [B, K]."""
        return self._run(x)[2]

    def _run(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        self._seen.clear()
        logits = self.model(x)
        features, last = map(self._over_positions, self._seen.pop())
        return logits, features, last

    def _over_positions(self, values: torch.Tensor) -> torch.Tensor:
        if self.convolution:
            return values.mean((2, 3))
        return values if values.ndim == 2 else values.flatten(1, -2).mean(1)


def find_features(model: nn.Module, x: torch.Tensor, classes: int) -> tuple[WithFeatures, str]:
    """Wrap a module so that it returns (logits, features), and say where they come from.

    Its last layer is the linear one or the convolution that ran last among those with an output a class; the linear one
    that ran last where none has. Raises ExportError where there is none.
    """
    called: list[tuple[str, tuple[int, ...]]] = []
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: called.append((name, tuple(inputs[0].shape))))
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d) and name
    ]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    layers = {name: model.get_submodule(name) for name, _ in called}
    heads = [call for call in called if _outputs(layers[call[0]]) == classes]
    heads = heads or [call for call in called if isinstance(layers[call[0]], nn.Linear)]
    if not heads:
        raise ExportError(
            "The classifier has no linear layer, and no convolution with one output per class, to take features from; "
            "return (logits, features)."
        )
    name, shape = heads[-1]
    convolution = isinstance(layers[name], nn.Conv2d)
    where = f"the input of its last {'convolution' if convolution else 'linear layer'}, {name}"
    positions = shape[2:] if convolution else shape[1:-1]
    if any(side > 1 for side in positions):
        where += f", the mean over its {'x'.join(map(str, positions))} positions"
    return WithFeatures(model, name), where


def _outputs(layer: nn.Module) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels  # type: ignore[return-value]
