"""The zoo's classifier: two small residual networks whose logits are averaged; returns logits and features."""

import torch
from torch import nn
from torch.nn import functional

CLASSES = 10
FEATURES = 128  # of each network


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm and a projected shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, bias=False) if inputs != outputs else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B, inputs, H, W] to [B, outputs, H, W]."""
        h = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(h)) + self.shortcut(x))


class SmallResNet(nn.Module):
    """Classifier of small images, 0.3 M parameters; the mean/std normalisation is inside.

    Input float32 [B, channels, H, W] in [0, 1]; returns (logits [B, classes], features [B, 128]).
    """

    def __init__(self, mean: float = 0.2860, std: float = 0.3530, classes: int = CLASSES, channels: int = 1) -> None:
        super().__init__()
        self.mean, self.std = mean, std  # Fashion-MNIST's training pixels
        self.stem = nn.Sequential(nn.Conv2d(channels, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU())
        self.block1 = ResidualBlock(24, 24)
        self.block2 = ResidualBlock(24, 64)
        self.block3 = ResidualBlock(64, FEATURES)
        self.head = nn.Linear(FEATURES, classes)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (logits, features); features are the input of the last linear layer."""
        h = self.block1(self.stem((x - self.mean) / self.std))
        h = self.block2(functional.max_pool2d(h, 2))
        h = self.block3(functional.max_pool2d(h, 2))
        features = h.mean(dim=(2, 3))
        return self.head(features), features


class PairedResNet(nn.Module):
    """Two SmallResNets: one trained plainly, one whose answer was trained to survive denoising. 0.6 M parameters.

    Input float32 [B, 1, 28, 28] in [0, 1]; returns (logits [B, 10], features [B, 256]). The logits are the mean of
    both, which is a linear layer over the features of both.
    """

    def __init__(self) -> None:
        super().__init__()
        self.plain = SmallResNet()
        self.steady = SmallResNet()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (logits, features)."""
        plain, plain_features = self.plain(x)
        steady, steady_features = self.steady(x)
        return (plain + steady) / 2, torch.cat([plain_features, steady_features], dim=1)


def paired_resnet() -> PairedResNet:
    """Build the untrained network, as `--classifier .../classifier.py:paired_resnet` asks for it."""
    return PairedResNet()


def materials_resnet() -> SmallResNet:
    """Build the untrained network of the surfaces that research/build_materials.py cuts: colour, eight classes."""
    return SmallResNet(classes=8, channels=3)
