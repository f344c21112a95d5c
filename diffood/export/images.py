"""Reads the in-distribution images that a classifier is tried on, and whose value ranges int8 is fitted to."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from diffood.errors import UsageError
from diffood.runtime.images.conversions import conversion_text, count_kinds
from diffood.runtime.images.decode import DEFAULT_LIMITS, ImageShape
from diffood.runtime.inputs.open import list_inputs
from diffood.runtime.inputs.reading import DEFAULT_RULES, InputRules
from diffood.runtime.progress import Say


def read_sample(
    inputs: Sequence[str],
    shape: ImageShape,
    most: int,
    report: Say,
    rules: InputRules = DEFAULT_RULES,
) -> npt.NDArray[np.uint8]:
    """At most `most` images uint8 [N, C, H, W] of the models' shape, evenly over the inputs; unusable ones reported.

    Raises UsageError where none can be used, or an input names nothing.
    """
    sources = list_inputs(inputs, rules)
    chosen = [sources[index] for index in np.unique(np.linspace(0, len(sources) - 1, most).round().astype(int))]
    loaded = [(source, source.load(shape, DEFAULT_LIMITS)) for source in chosen]
    for source, image in loaded:
        if image.pixels is None:
            report(f"set aside   {source.id!r}: {image.error}")
    usable = [image.pixels for _, image in loaded if image.pixels is not None]
    if not usable:
        raise UsageError(f"None of the {len(chosen)} files tried of {inputs[0]} is a usable image; see above.")
    if changed := conversion_text(count_kinds(image.note for _, image in loaded), len(usable)):
        report(f"converted   {changed}")
    return np.stack(usable)
