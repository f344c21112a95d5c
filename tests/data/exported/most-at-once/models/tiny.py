"""A classifier of 3x8x8 images, for a test."""

import torch
from torch import nn


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(3 * 64, 12), nn.Linear(12, 4)
        generator = torch.Generator().manual_seed(11)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3, generator=generator)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = torch.tanh(self.hidden(x.flatten(1)))
        return self.head(features)


def tiny() -> Tiny:
    return Tiny()
