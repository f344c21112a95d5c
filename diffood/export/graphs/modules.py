"""The torch modules that become graphs: classify, and one denoising step. No files, no ONNX.

Images, times and updates are float32; only what is inside a model takes the type of its weights, which may be half.
"""

import torch
from torch import nn

from diffood.export.onnx.precision import RESIZING
from diffood.export.sources.classifiers.classifier import Classifier
from diffood.export.sources.unets.unet import UNet


def weight_type(model: nn.Module) -> torch.dtype:
    """The type a model computes in: its first parameter's, float32 where it has none."""
    return next((parameter.dtype for parameter in model.parameters()), torch.float32)


class PrepareImages(nn.Module):
    """x [B, C, H, W] in [-1, 1] -> classifier input, float32: resized, cropped, channels matched, normalised."""

    def __init__(self, classifier: Classifier, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.from_channels, self.to_channels = channels, classifier.channels
        matrices = classifier.preprocessing.matrices(height, width)
        self.resizes = matrices is not None
        for name, matrix in zip(RESIZING, matrices or (), strict=False):
            self.register_buffer(name, torch.from_numpy(matrix))
        mean = classifier.preprocessing.mean or (0.0,)
        std = classifier.preprocessing.std or (1.0,)
        self.register_buffer("mean", torch.tensor(mean).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(1, -1, 1, 1))
        self.resize_rows: torch.Tensor
        self.resize_columns: torch.Tensor
        self.mean: torch.Tensor
        self.std: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images of the UNet to images of the classifier."""
        image = (x + 1) / 2
        if self.resizes:
            image = self.resize_rows @ image @ self.resize_columns
        if self.from_channels < self.to_channels:
            image = torch.cat([image, image, image], dim=1)
        elif self.from_channels > self.to_channels:
            # ITU-R 601 luma, what Pillow's convert("L") takes
            image = 0.299 * image[:, 0:1] + 0.587 * image[:, 1:2] + 0.114 * image[:, 2:3]
        return (image - self.mean) / self.std


class ClassifyGraph(nn.Module):
    """x [B, C, H, W] in [-1, 1] -> logits [B, K], features [B, D]; resizing and normalisation are inside."""

    def __init__(self, classifier: Classifier, channels: int, height: int, width: int) -> None:
        super().__init__()
        self.model, self.prepare = classifier.model, PrepareImages(classifier, channels, height, width)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map images of the UNet to logits and features."""
        logits, features = self.model(self.prepare(x).to(weight_type(self.model)))
        return logits.float(), features.float()


class StepPlain(nn.Module):
    """One UNet evaluation and one update per row, without labels.

    x [B, C, H, W], time [B], coefficients [B, 4] = (p_x, p_m, c_x, c_eps) -> x_next, epsilon [B, C, H, W].
    """

    def __init__(self, unet: UNet) -> None:
        super().__init__()
        self.model, self.channels, self.null = unet.model, unet.channels, unet.label_count - 1

    def predict(self, x: torch.Tensor, time: torch.Tensor, label: torch.Tensor | None) -> torch.Tensor:
        """Evaluate the UNet; of a learned sigma's 2C outputs the first C are the prediction.

        diffusers makes the sinusoids of `time` in float32, whatever the weights are.
        """
        asked = x.to(weight_type(self.model))
        output: torch.Tensor = self.model(asked, time, class_labels=label, return_dict=False)[0]
        return output[:, : self.channels].float()

    def update(self, x: torch.Tensor, output: torch.Tensor, coefficients: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """One row of a StepTable, without its registers."""
        p_x, p_m, c_x, c_eps = (coefficients[:, i : i + 1, None, None] for i in range(4))
        epsilon = p_x * x + p_m * output
        return c_x * x + c_eps * epsilon, epsilon

    def forward(self, x: torch.Tensor, time: torch.Tensor, coefficients: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Advance every image by one row of the table."""
        return self.update(x, self.predict(x, time, None), coefficients)


class StepLabelled(StepPlain):
    """One evaluation per row, conditioned on label int64 [B]."""

    def forward(  # type: ignore[override]
        self, x: torch.Tensor, time: torch.Tensor, label: torch.Tensor, coefficients: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Advance every image by one row of the table."""
        return self.update(x, self.predict(x, time, label), coefficients)


class StepGuided(StepPlain):
    """Two evaluations per row: eps = (1 + beta)·eps(label) - beta·eps(null), beta = guidance [B]."""

    def forward(  # type: ignore[override]
        self,
        x: torch.Tensor,
        time: torch.Tensor,
        label: torch.Tensor,
        coefficients: torch.Tensor,
        guidance: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """Advance every image by one row of the table."""
        labels = torch.cat([label, torch.full_like(label, self.null)])
        output = self.predict(torch.cat([x, x]), torch.cat([time, time]), labels)
        # Slices, not chunk(2): the exporter freezes the batch of a chunk.
        conditional, unconditional = output[: x.shape[0]], output[x.shape[0] :]
        beta = guidance[:, None, None, None]
        return self.update(x, (1 + beta) * conditional - beta * unconditional, coefficients)
