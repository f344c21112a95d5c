"""Inputs to prove graphs on: seeded, of the size and range the loop feeds them."""

from collections.abc import Iterator

import torch

from diffood.export.onnx import PROOF_BATCHES, Inputs
from diffood.export.sources.unet import UNet
from diffood.runtime.bundle import Role

PROOF_ROWS = 25  # rows a batch while every time of the schedule is proven


class Samples:
    """Draws inputs of one graph; the same ones in the same order every time."""

    def __init__(self, unet: UNet, classes: int, steps: int, role: Role) -> None:
        self.unet, self.classes, self.steps, self.role = unet, classes, steps, role
        self.generator = torch.Generator().manual_seed(0)

    def draw(self, batch: int, time: torch.Tensor | None = None) -> Inputs:
        """One batch; times of the whole schedule unless given."""
        image = self.unet.image
        if self.role in ("classify", "encode"):
            x = torch.randn(batch, image.channels, image.height, image.width, generator=self.generator)
            return {"x": x.clamp(-1, 1)}
        x = torch.randn(batch, self.unet.channels, self.unet.height, self.unet.width, generator=self.generator)
        if self.role == "decode":
            return {"z": self._latents(x)}
        if time is None:
            time = torch.randint(0, self.steps, (batch,), generator=self.generator).float()
        inputs = {"x": x, "time": time}
        if self.unet.labels(self.classes) != "none":
            inputs["label"] = torch.randint(0, self.classes, (batch,), generator=self.generator)
        inputs["coefficients"] = torch.tensor([[0.0, 1.0, 1.0, -1.0]]).repeat(batch, 1)
        if self.role == "step_guided":
            inputs["guidance"] = torch.full((batch,), 2.0)
        return inputs

    def _latents(self, drawn: torch.Tensor) -> torch.Tensor:
        """Latents of unit size; with a code book, codes: between two, rounding alone would choose one."""
        autoencoder = self.unet.autoencoder
        if autoencoder is None or autoencoder.codes is None:
            return drawn
        codes = autoencoder.codes.weight.float()
        batch, _, height, width = drawn.shape
        chosen = codes[torch.randint(0, len(codes), (batch, height, width), generator=self.generator)]
        offset, scale = torch.tensor(autoencoder.offset), torch.tensor(autoencoder.scale)
        return ((chosen - offset) * scale).permute(0, 3, 1, 2).contiguous()

    def proofs(self) -> Iterator[Inputs]:
        """Batches 1, 2, 5, then every time of the schedule once."""
        for batch in PROOF_BATCHES:
            yield self.draw(batch)
        if self.role in ("step_plain", "step_guided"):
            for times in torch.arange(self.steps, dtype=torch.float32).split(PROOF_ROWS):
                yield self.draw(len(times), times)
