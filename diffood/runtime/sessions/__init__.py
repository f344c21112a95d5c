"""Engines behind one protocol: a session has the graphs of a bundle and the state of the lanes on its device."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from diffood.runtime.backends import Backend
from diffood.runtime.bundle.bundle import Precision
from diffood.runtime.method.scoring import Array


@dataclass(frozen=True)
class Classified:
    """What the classifier gives for N images.

    Attributes:
        logits: float32 [N, K].
        features: Of the penultimate layer, float32 [N, D].
    """

    logits: Array
    features: Array


@dataclass(frozen=True)
class StepInputs:
    """One step of all B lanes: a row of each lane's StepTable.

    Attributes:
        time: float32 [B].
        label: int64 [B].
        guidance: float32 [B].
        coefficients: float32 [B, 4].
        weights: Of the registers, float32 [B, H].
        store: Register that gets this step's epsilon, int64 [B]; NO_REGISTER: none.
    """

    time: Array
    label: npt.NDArray[np.int64]
    guidance: Array
    coefficients: Array
    weights: Array
    store: npt.NDArray[np.int64]

    @property
    def moving(self) -> npt.NDArray[np.bool_]:
        """Which lanes [B] the step advances: c_eps is 0 in a lane that idles, and in no row of a table."""
        return np.asarray(self.coefficients[:, -1] != 0)


class Session(Protocol):
    """What every backend offers. All calls of an engine have the same number of rows: B, on a CPU a part of it.

    Lanes stay on the device between steps: `put` and `take` are the only copies. They contain images [C, H, W], or
    latents if the bundle has an autoencoder; only then `encode` and `decode` are called. One thread at a time.
    """

    @property
    def backend(self) -> Backend:
        """Name and device, e.g. onnxruntime-cpu; part of the fingerprint."""

    @property
    def precision(self) -> Precision:
        """Precision of the graphs, e.g. fp32; part of the fingerprint."""

    @property
    def engine_sha256(self) -> str | None:
        """One hash over the plan files of a built engine, None where the graphs run as they are; likewise."""

    @property
    def batch(self) -> int:
        """Rows B that the engine works on at once; on a GPU, of every call."""

    @property
    def threads(self) -> int:
        """CPU threads that an engine call keeps busy, on which last bits may depend; 0 on a GPU."""

    def classify(self, x: Array) -> Classified:
        """Classify any number N of images [N, C, H, W] in [-1, 1]; the last batch is padded, never shrunk."""

    def encode(self, x: Array) -> Array:
        """Latents [N, c, h, w] of any number of images [N, C, H, W] in [-1, 1], padded as `classify` does."""

    def decode(self, z: Array) -> Array:
        """Images [N, C, H, W], not clamped, of any number of latents [N, c, h, w]."""

    def put(self, lane: int, x: Array) -> None:
        """Load an image or latent into a lane."""

    def step(self, inputs: StepInputs) -> None:
        """Advance every lane by one row of its table."""

    def take(self, lane: int) -> Array:
        """Copy the image or latent of a lane."""

    def synchronize(self) -> None:
        """Wait until the device has done all steps: only then does a clock show what they took."""
