"""Inputs that graphs are proven on: seeded, of the size and range that steps are fed."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from diffood.export.onnx.proof import PROOF_BATCHES, GraphInputs
from diffood.export.request import ProofScope
from diffood.runtime.bundle.bundle import Role
from diffood.runtime.images.decode import ImageShape
from diffood.runtime.method.schedule import StepTable

PROOF_ROWS = 25  # of a batch, at the most, while the times of the schedule are proven
# ONNX Runtime writes attention out: a float32 score for each pair of an image's positions and each head, in up to three
# copies, twice with guidance. 2**25 pairs a batch are less than 1 GB a head then: PROOF_ROWS up to 34x34, and at 64x64
# two rows, the fewest that show a frozen batch. Networks without attention at full
# size are treated alike: fewer rows at once take more time, and prove the same.
PROOF_PAIRS = 2**25
# Of all proof rows of one graph, each of which torch and ONNX Runtime evaluate: some minutes of a CPU core each. A UNet
# of 36 M parameters at 32x32 is proven at every time, with guidance; one of 550 M at 256x256 at a dozen.
PROOF_OPERATIONS = 3e13
FEWEST_PROOFS = 3
QUICK_BETWEEN = 16  # times between the first and the last that quick proofs add to those the plans ask at


def count_rows(height: int, width: int) -> int:
    """Rows of a batch in which a network for height x width is proven."""
    return max(1, min(PROOF_ROWS, PROOF_PAIRS // (height * width) ** 2))


def proof_times(steps: int, asked: Iterable[float], proof: ProofScope) -> torch.Tensor:
    """Times to prove step graphs at, float32, ascending.

    Args:
        steps: Of the schedule.
        asked: Times the plans ask the UNet at.
        proof: full for every time of the schedule; quick for those asked, the ends and QUICK_BETWEEN between them.

    """
    if proof == "full":
        return torch.arange(steps, dtype=torch.float32)
    spread = torch.linspace(0, steps - 1, QUICK_BETWEEN + 2).round().tolist()
    return torch.tensor(sorted({*asked, *spread}), dtype=torch.float32)


def times_asked(plans: Iterable[Iterable[StepTable]]) -> set[float]:
    """Times at which plans with these tables evaluate the UNet."""
    return {float(time) for tables in plans for table in tables for time in table.times}


def first_batches(rows: int) -> tuple[int, ...]:
    """PROOF_BATCHES up to `rows`; always one and two, which show a frozen batch."""
    return tuple(batch for batch in PROOF_BATCHES if batch <= max(2, rows))


@dataclass(frozen=True)
class DrawnInputs:
    """What inputs of a bundle's graphs are drawn from.

    Attributes:
        image: Of the images.
        row: (c, h, w) of what is denoised: images, or latents.
        labels: How many the UNet is asked with; 0 if it takes none.
        steps: Of the noise schedule.
        codes: Latents of a code book, float32 [N, c]; None without one.
    """

    image: ImageShape
    row: tuple[int, int, int]
    labels: int
    steps: int
    codes: torch.Tensor | None = None


class InputSampler:
    """Draws inputs of one graph, seeded: the same ones in the same order every time."""

    def __init__(self, drawn: DrawnInputs, role: Role) -> None:
        self.drawn, self.role = drawn, role
        self.generator = torch.Generator().manual_seed(0)

    @property
    def timed(self) -> bool:
        """Whether the graph takes a time of the schedule."""
        return self.role in ("step_plain", "step_guided")

    @property
    def rows(self) -> int:
        """Rows of a batch. An autoencoder attends to latents, as a UNet does; a classifier to a few patches."""
        return PROOF_ROWS if self.role == "classify" else count_rows(*self.drawn.row[1:])

    def draw(self, batch: int, time: torch.Tensor | None = None) -> GraphInputs:
        """One batch; times of the whole schedule unless given."""
        image = self.drawn.image
        if self.role in ("classify", "encode"):
            x = torch.randn(batch, image.channels, image.height, image.width, generator=self.generator)
            return {"x": x.clamp(-1, 1)}
        x = torch.randn(batch, *self.drawn.row, generator=self.generator)
        if self.role == "decode":
            return {"z": self._latents(x)}
        if time is None:
            time = torch.randint(0, self.drawn.steps, (batch,), generator=self.generator).float()
        inputs = {"x": x, "time": time}
        if self.drawn.labels:
            inputs["label"] = torch.randint(0, self.drawn.labels, (batch,), generator=self.generator)
        inputs["coefficients"] = torch.tensor([[0.0, 1.0, 1.0, -1.0]]).repeat(batch, 1)
        if self.role == "step_guided":
            inputs["guidance"] = torch.full((batch,), 2.0)
        return inputs

    def _latents(self, drawn: torch.Tensor) -> torch.Tensor:
        """Latents of unit size; with a code book, codes: between two, rounding alone would choose one."""
        codes = self.drawn.codes
        if codes is None:
            return drawn
        batch, _, height, width = drawn.shape
        chosen = codes[torch.randint(0, len(codes), (batch, height, width), generator=self.generator)]
        return chosen.permute(0, 3, 1, 2).contiguous()


class ProofInputs:
    """Inputs that a graph is proven on, the same ones each time they are iterated over.

    Batches 1, 2, 5, then every given time once; of large images in smaller batches. Where that would be more than
    PROOF_OPERATIONS: as many of the times as that allows, from the first to the last, in batches of one and two.

    Args:
        samples: Draws them.
        operations: Floating-point operations of one row of the graph.
        times: For a step, float32, ascending.

    Attributes:
        operations: Of one row.
        times: For a step, those of them it is proven at; empty for other graphs.
        rows: How many inputs there are.
    """

    def __init__(self, samples: InputSampler, operations: int, times: torch.Tensor) -> None:
        self._samples, self._start, self.operations = samples, samples.generator.get_state(), operations
        self.times = times if samples.timed else times[:0]
        self.rows = sum(first_batches(samples.rows)) + len(self.times)
        self._affordable = not samples.timed or self.rows * operations <= PROOF_OPERATIONS
        if not self._affordable:
            self.rows = max(FEWEST_PROOFS, min(len(times), int(PROOF_OPERATIONS // max(1, operations))))
            self.times = times[torch.linspace(0, len(times) - 1, self.rows).round().long()]

    def __iter__(self) -> Iterator[GraphInputs]:
        """Draw from where the samples stood at first, and leave them after the last."""
        samples = self._samples
        samples.generator.set_state(self._start)
        if not self._affordable:
            yield samples.draw(1, self.times[:1])
            yield samples.draw(2, self.times[1:3])
            for time in self.times[3:]:
                yield samples.draw(1, time[None])
            return
        for batch in first_batches(samples.rows):
            yield samples.draw(batch)
        if samples.timed:
            for times in self.times.split(samples.rows):
                yield samples.draw(len(times), times)
