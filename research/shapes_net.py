"""A user's own classifier of the shapes: python -m research.shapes_net --images shapes --output net.safetensors.

As `diffood export --classifier research/shapes_net.py:build --classifier-weights net.safetensors` takes it. Three
minutes of one core.
"""

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

CLASSES = 6
EPOCHS, BATCH, PEAK_RATE = 8, 64, 3e-3


def build() -> nn.Module:
    """Maps images [B, 3, 32, 32] in [0, 1] to logits [B, 6]."""
    widths, layers = (3, 24, 48, 96), []
    for before, after in pairwise(widths):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
        layers += [nn.Conv2d(after, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], CLASSES))


def read_split(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Images float32 [N, 3, 32, 32] in [0, 1] and labels, the folders in the order of their names."""
    files = sorted(folder.glob("*/*.png"))
    names = sorted({file.parent.name for file in files})
    pixels = np.stack([np.asarray(Image.open(file)) for file in files]).transpose(0, 3, 1, 2)
    return torch.from_numpy(pixels.astype(np.float32) / 255), torch.tensor([names.index(f.parent.name) for f in files])


def main() -> None:
    """Parse the command line, train, and say how many test images are classified rightly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    images, labels = read_split(arguments.images / "train")
    model, steps = build(), len(images) // BATCH
    optimiser = torch.optim.AdamW(model.parameters(), PEAK_RATE)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_RATE, total_steps=EPOCHS * steps)
    for epoch in range(EPOCHS):
        order = torch.randperm(len(images))
        for step in range(steps):
            batch = order[step * BATCH : (step + 1) * BATCH]
            x = images[batch]
            x = x.flip(3) if step % 2 else x
            loss = functional.cross_entropy(model(x), labels[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            cycle.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.4f}", flush=True)
    model.eval()
    tests, true = read_split(arguments.images / "test")
    with torch.no_grad():
        print(f"test accuracy {(model(tests).argmax(1) == true).float().mean().item():.4f}")
    save_file(model.state_dict(), arguments.output)


if __name__ == "__main__":
    main()
