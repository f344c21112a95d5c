"""Trains the zoo's classifier: python -m research.train_classifier --output classifier.safetensors.

One-cycle SGD, shifts of up to two pixels, flips left to right where classes allow them, the average of
the last epochs' weights. The held-out images are looked at once, after training, for the model card.
--data takes an archive of digits or a file of build_materials as well as the folder of Fashion-MNIST.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from diffood.zoo.classifier import SmallResNet
from research.datasets import FASHION_MNIST, Images, channels_first, load_training_data

BATCH = 64
PEAK_RATE = 0.1
EMA_DECAY = 0.998


def augment(images: torch.Tensor, generator: torch.Generator, *, mirrored: bool) -> torch.Tensor:
    """Shift each [B, C, side, side] image by up to two pixels and, if asked to, mirror half of them."""
    count, side = len(images), images.shape[-1]
    padded = functional.pad(images, (2, 2, 2, 2))
    dy, dx = torch.randint(0, 5, (2, count, 1), generator=generator)
    rows = (torch.arange(side) + dy)[:, :, None]
    columns = (torch.arange(side) + dx)[:, None, :]
    shifted = padded.movedim(1, -1)[torch.arange(count)[:, None, None], rows, columns].movedim(-1, 1).contiguous()
    if mirrored:
        mirror = torch.rand(count, generator=generator) < 0.5
        shifted[mirror] = shifted[mirror].flip(3)
    return shifted


def accuracy(model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of images in [0, 1] whose largest logit is their label."""
    model.eval()
    with torch.no_grad():
        hits = [(model(x)[0].argmax(1) == y).sum() for x, y in zip(images.split(500), labels.split(500), strict=True)]
    return float(torch.stack(hits).sum()) / len(labels)


def as_tensors(images: Images, labels: Images) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn uint8 images into float32 [N, C, H, W] in [0, 1], labels into int64."""
    return torch.from_numpy(channels_first(images).astype(np.float32) / 255), torch.from_numpy(labels.astype(np.int64))


def train(data: Path, without: list[int], output: Path, epochs: int, seed: int, *, bf16: bool) -> None:
    """Train from scratch and write OUTPUT (safetensors) and OUTPUT.json (the curve)."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    training = load_training_data(data).without(without)
    images, labels = as_tensors(training.images, training.labels)
    steps = len(images) // BATCH
    model = SmallResNet(classes=training.classes, channels=training.channels)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # half the time of the other layout
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY), use_buffers=True)
    optimiser = torch.optim.SGD(model.parameters(), PEAK_RATE, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_RATE, total_steps=epochs * steps, pct_start=0.2)
    curve, start = [], time.monotonic()
    for epoch in range(epochs):
        model.train()
        order, total = torch.randperm(len(images), generator=generator), 0.0
        for step in range(steps):
            batch = order[step * BATCH : (step + 1) * BATCH]
            inputs = augment(images[batch], generator, mirrored=training.mirrored)
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                logits, _ = model(inputs.contiguous(memory_format=torch.channels_last))
            loss = functional.cross_entropy(logits.float(), labels[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            average.update_parameters(model)
            total += loss.item()
        minutes = (time.monotonic() - start) / 60
        curve.append({"epoch": epoch + 1, "loss": round(total / steps, 4), "minutes": round(minutes, 1)})
        print(json.dumps(curve[-1]), flush=True)
        save_file({k: v.contiguous() for k, v in average.module.state_dict().items()}, output)
    result = accuracy(average.module, *as_tensors(training.held_out, training.held_out_labels))
    print(f"test accuracy {result:.4f}")
    report = {"test_accuracy": result, "epochs": epochs, "seed": seed, "batch": BATCH, "curve": curve}
    output.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=FASHION_MNIST)
    parser.add_argument("--without", type=int, nargs="+", default=[], help="classes to leave out")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bf16", action="store_true", help="multiply in bfloat16; half the time on a CPU that has it")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    train(arguments.data, arguments.without, arguments.output, arguments.epochs, arguments.seed, bf16=arguments.bf16)


if __name__ == "__main__":
    main()
