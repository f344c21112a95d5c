"""Tells logits from probabilities by their values on a few made-up images, and takes the logits where it finds them."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from diffood.errors import ExportError
from diffood.export.sources.classifiers.features import WithFeatures
from diffood.export.sources.classifiers.preprocessing import Preprocessing

# What classifiers end in. Each is compared with the last layer's output of the same images.
ENDINGS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "softmax": lambda z: torch.softmax(z, 1),
    "log_softmax": lambda z: torch.log_softmax(z, 1),
    "sigmoid": torch.sigmoid,
}
RELATIVE = 1e-3  # to which the sums of probabilities are alike: half precision, and clipping away from 0
_METHOD = "The method compares logits, what goes into the softmax"


def draw_pictures(channels: int, size: tuple[int, int], prepared: Preprocessing) -> torch.Tensor:
    """Four images as unlike as can be [4, channels, H, W], prepared: noise, coarse noise, a slope, one grey."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(1, channels, *size, generator=generator)
    coarse = nn.functional.interpolate(torch.rand(1, channels, 3, 3, generator=generator), size, mode="nearest")
    slope = torch.linspace(0, 1, size[1]).expand(1, channels, *size)
    images = torch.cat([noise, coarse, slope, torch.full_like(noise, 0.5)])
    mean, std = (
        torch.tensor(values).reshape(1, -1, 1, 1) for values in (prepared.mean or (0.0,), prepared.std or (1.0,))
    )
    return (images - mean) / std


def take_logits(model: WithFeatures, x: torch.Tensor) -> str:
    """Have a module give the output of its last layer, where it ends in a softmax or the like; "" where it does not.

    Args:
        model: Is changed.
        x: Images, prepared.

    Returns:
        A note for the user.

    """
    with torch.no_grad():
        outputs, last = model(x)[0], model.last_output(x)
    if last.shape != outputs.shape:
        return ""
    for name, ending in ENDINGS.items():
        if torch.allclose(outputs, ending(last), rtol=1e-4, atol=1e-6) and not torch.allclose(outputs, last):
            model.gives_last_output = True
            return f"it ends in {name}: its logits are what goes into that, the output of its layer {model.layer}"
    return ""


def require_logits(outputs: torch.Tensor, spec: str) -> None:
    """Refuse outputs [N, K] for N different images that cannot be logits.

    Raises ExportError for values that are not finite, the same for every image, or probabilities: all of them 0 or
    more with the same sum (1, or 100 for percentages), or their logarithms.
    """
    values = outputs.double().numpy()
    if not np.isfinite(values).all():
        raise ExportError(
            f"{spec} gives values that are not finite, for images of noise or of one grey; check its weights."
        )
    if np.ptp(values, axis=0).max() <= 1e-6 * np.abs(values).max():
        raise ExportError(
            f"{spec} gives the same output for {len(values)} very different images; check its weights, and --mean and "
            "--std, which are for pixels in 0..1."
        )
    sums = values.sum(axis=1)
    if (values >= 0).all() and np.ptp(sums) <= RELATIVE * sums.max():
        what = f"are 0 or more and sum to {sums[0]:.4g}"
    elif (values <= 0).all() and np.abs(np.log(np.exp(values).sum(axis=1))).max() <= RELATIVE:
        what = "are logarithms of numbers that sum to 1"
    else:
        return
    raise ExportError(
        f"{spec} gives probabilities: its outputs {what} on {len(values)} different images. {_METHOD}: leave the "
        "softmax out of the model (or name the logits of an ONNX file by --logits-output)."
    )
