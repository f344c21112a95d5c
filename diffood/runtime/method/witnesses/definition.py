"""What a witness has to say of itself, and the evidence it is measured on. Measures nothing."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from diffood.runtime.method.scoring import Array, Float, softmax_confidence
from diffood.runtime.onnx.builder import Value


@dataclass(frozen=True)
class Evidence:
    """What a pass leaves of one image.

    Attributes:
        x: The image, float32 [C, H, W] in [-1, 1].
        logits: Of the image, float32 [K].
        features: Of the image, float32 [D].
        jumps: By repeat and start time, float64 [R, T]; NaN where no witness needs denoised images classified. R is
            how many repeats were done, which may be none.
        denoised: float32 [R, T, C, H, W] in [-1, 1].
    """

    x: Array
    logits: Array
    features: Array
    jumps: Float
    denoised: Array

    @property
    def repeats(self) -> int:
        """How many repeats were done."""
        return len(self.jumps)

    @property
    def by_start(self) -> Float:
        """The jump [T] at each start time, mean over repeats; NaN without one."""
        return np.asarray(self.jumps.mean(axis=0)) if self.repeats else np.full(self.jumps.shape[1], np.nan)

    def first(self, repeats: int) -> "Evidence":
        """What there would be had the pass stopped after so many repeats."""
        return replace(self, jumps=self.jumps[:repeats], denoised=self.denoised[:repeats])

    @property
    def predicted(self) -> int:
        """Index of the largest logit."""
        return int(self.logits.argmax())

    @property
    def confidence(self) -> float:
        """Largest softmax probability."""
        return float(softmax_confidence(self.logits[None])[0])


@dataclass(frozen=True)
class Traces:
    """What a stage's graph has of B images, for witnesses to be written from; T start times, R repeats.

    Attributes:
        image: (C, H, W).
        norm: Of differences, see Plan.norm.
        compare: What with, see Plan.compare.
        width: S, the length of the classifier's output in the plan's space.
        x: [B, C, H, W] in [-1, 1].
        logits: [B, K].
        features: [B, D].
        denoised: [T, R, B, C, H, W] in [-1, 1]; None where nothing is denoised.
        origin: The classifier's output that denoised images are compared with, in the plan's space: [1, R, B, S], or
            [1, 1, B, S] where all repeats have the same one; None where denoised images are not classified.
        after: Its output for them, [T, R, B, S]; likewise.
    """

    image: tuple[int, int, int]
    norm: Literal["l1", "l2"]
    compare: Literal["origin", "neighbour"]
    width: int
    x: Value
    logits: Value
    features: Value
    denoised: Value | None = None
    origin: Value | None = None
    after: Value | None = None


@dataclass(frozen=True)
class WitnessDefinition:
    """One witness. It is higher for what is more out-of-distribution.

    Attributes:
        name: Its name in plans, rows and files.
        meaning: What it says, as a sentence for reports.
        measure: Its value from the evidence of one image and the bank, float32 [B, D] of unit rows; the bank is None
            where no witness of the plan needs one.
        needs_repeats: Whether it is measured on denoised images.
        classifies_denoised: Whether it needs denoised images classified, which costs a classification of each.
        of_logits: Its values [n] from the logits [n, K] of images, for a witness that needs no more.
        of_image: Writes the same of images, [B], into a graph.
        of_denoised: Writes what it says of each denoised image, [T, R, B]; `reduce` makes one value of them.
        reduce: "mean", or "root" for the square root of it.
        measure_in_bank: Its value for features [D] that are a row of the bank themselves, which does not count; given
            by the witnesses that need a bank.
    """

    name: str
    meaning: str
    measure: Callable[[Evidence, Array | None], float]
    needs_repeats: bool = False
    classifies_denoised: bool = False
    of_logits: Callable[[npt.NDArray[np.floating]], Float] | None = None
    of_image: Callable[[Traces], Value] | None = None
    of_denoised: Callable[[Traces], Value] | None = None
    reduce: Literal["mean", "root"] = "mean"
    measure_in_bank: Callable[[Array, Array], float] | None = None
