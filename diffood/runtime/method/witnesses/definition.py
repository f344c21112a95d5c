"""What a witness has to say of itself, and the evidence it is measured on. Measures nothing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from diffood.runtime.method.scoring import Array, Float, softmax_confidence
from diffood.runtime.onnx.builder import Value

Reference = Mapping[str, Array]  # what a witness knows of in-distribution images, by name of the array
FEATURES, INSIDE, SNAPSHOT = "features", "inside", "snapshot"  # vectors that witnesses compare


@dataclass(frozen=True)
class Evidence:
    """What a pass leaves of images: of n images each array begins with [n], of one image with nothing.

    Attributes:
        pixels: The images, uint8 [..., C, H, W].
        logits: float32 [..., K].
        features: float32 [..., D].
        sound: Whether all that the models gave is finite, bool [...].
        repeats: How many repeats R were done, which may be none.
        distances: What each witness of denoised images says, by name: float32 [..., R, T] by repeat and start time.
        denoised: The images denoised from the largest start time with the first noise, float32 [..., C, H, W] in
            [-1, 1]; None where nothing was denoised. The others are looked at in the graph, and would fill memory.
        inner: Vectors from inside the networks that a witness compares, by name: float32 [..., L].
    """

    pixels: npt.NDArray[np.uint8]
    logits: Array
    features: Array
    sound: npt.NDArray[np.bool_]
    repeats: int = 0
    distances: Mapping[str, Array] = field(default_factory=dict)
    denoised: Array | None = None
    inner: Mapping[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.logits)

    def __getitem__(self, rows: int | npt.NDArray[np.int64]) -> "Evidence":
        """That of one image, or of some."""
        return Evidence(
            self.pixels[rows],
            self.logits[rows],
            self.features[rows],
            self.sound[rows],
            self.repeats,
            {name: value[rows] for name, value in self.distances.items()},
            None if self.denoised is None else self.denoised[rows],
            {name: value[rows] for name, value in self.inner.items()},
        )

    @property
    def vectors(self) -> Mapping[str, Array]:
        """All that witnesses compare, by name, [..., L]."""
        return {FEATURES: self.features, **self.inner}

    def by_start(self, starts: int) -> Float:
        """The paper's score [..., T] at each start time, mean over repeats; NaN where it was not measured."""
        jumps = self.distances.get("jump")
        return (
            np.full((*self.logits.shape[:-1], starts), np.nan)
            if jumps is None
            else np.asarray(jumps.mean(-2, dtype=np.float64))
        )

    def first(self, repeats: int) -> "Evidence":
        """What there would be had the pass stopped after so many repeats; `sound` stays that of all."""
        if not repeats:
            inner = {name: vector for name, vector in self.inner.items() if name != SNAPSHOT}
            return replace(self, repeats=0, distances={}, denoised=None, inner=inner)
        found = {name: value[..., :repeats, :] for name, value in self.distances.items()}
        return replace(self, repeats=repeats, distances=found)

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        """Index [...] of the largest logit."""
        return np.asarray(self.logits.argmax(axis=-1))

    @property
    def confidence(self) -> Float:
        """Largest softmax probability [...]."""
        return softmax_confidence(self.logits)


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
        sound: 1 where all values of a denoised image were finite before it was clamped, else 0, [T, R, B]; likewise.
        origin: The classifier's output that denoised images are compared with, in the plan's space: [1, R, B, S], or
            [1, 1, B, S] where all repeats have the same one; None where denoised images are not classified.
        after: Its output for them, [T, R, B, S]; likewise.
        inner: As in `Evidence`, [B, L].
    """

    image: tuple[int, int, int]
    norm: Literal["l1", "l2"]
    compare: Literal["origin", "neighbour"]
    width: int
    x: Value
    logits: Value
    features: Value
    denoised: Value | None = None
    sound: Value | None = None
    origin: Value | None = None
    after: Value | None = None
    inner: Mapping[str, Value] = field(default_factory=dict)

    @property
    def vectors(self) -> Mapping[str, Value]:
        """As in `Evidence`, [B, L]."""
        return {FEATURES: self.features, **self.inner}


@dataclass(frozen=True)
class BankComparison:
    """How a witness compares a vector of an image with those of in-distribution images.

    Attributes:
        vector: Which one: "features"; or, of `Evidence.inner`, "inside", of the classifier, or "snapshot", of the UNet.
        axes: Arrays of a reference by name, with a letter for each axis. D is the length of vectors, K the number of
            logits; axes of one letter have one length.
        fit: From vectors [N, D] and logits [N, K] of in-distribution images, a reference, and what the witness says of
            each of them, float64 [N], had it been left out.
        measure: From a reference, the vector [D] and the logits [K] of an image, its value. Row by row, since a product
            of matrices rounds by the place of a row.
        write: The same in a graph, for vectors [B, D] and logits [B, K]: [B].
    """

    vector: str
    axes: Mapping[str, str]
    fit: Callable[[Array, Array], tuple[Reference, Float]]
    measure: Callable[[Reference, Array, Array], float]
    write: Callable[[Reference, Value, Value], Value]


@dataclass(frozen=True)
class WitnessDefinition:
    """One witness. It is higher for what is more out-of-distribution. It has one of the three ways to be measured.

    Attributes:
        name: Its name in plans, rows and files.
        meaning: What it says, as a sentence for reports.
        of_logits: Its values [...] from the logits [..., K] of images; `of_image` writes the same into a graph, [B].
        of_image: See `of_logits`.
        of_denoised: Writes what it says of each denoised image, [T, R, B]; `reduce` makes one value of them.
        reduce: "mean", or "root" for the square root of it.
        classifies_denoised: Whether it needs denoised images classified, which costs a classification of each.
        comparison: How it compares an image with in-distribution ones.
    """

    name: str
    meaning: str
    of_logits: Callable[[npt.NDArray[np.floating]], Float] | None = None
    of_image: Callable[[Traces], Value] | None = None
    of_denoised: Callable[[Traces], Value] | None = None
    reduce: Literal["mean", "root"] = "mean"
    classifies_denoised: bool = False
    comparison: BankComparison | None = None

    @property
    def denoises(self) -> bool:
        """Whether it needs the UNet."""
        return self.of_denoised is not None or (self.comparison is not None and self.comparison.vector == SNAPSHOT)
