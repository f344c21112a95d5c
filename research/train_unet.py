"""Trains the zoo's UNet: python -m research.train_unet --output unet.

Class-conditional epsilon prediction on the linear schedule, null class in a tenth of the samples,
times drawn uniformly (drawing low ones more often starves the high times that settle the class of
a guided sample), AdamW with a constant rate that falls linearly over the last quarter, and the
moving average of the weights. --data takes an archive of digits or a file of build_materials as
well as the folder of Fashion-MNIST. Stops and resumes at its checkpoint; the same command with a larger
--steps goes on.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DModel
from safetensors.torch import load_file, save_file
from torch.nn import functional

from diffood.runtime.images.pixels import from_pixels
from diffood.zoo.classifier import CLASSES
from research.datasets import FASHION_MNIST, SIDE, channels_first, load_training_data

BATCH = 32
RATE = 1e-3
EMA_DECAY = 0.9995
NULL_SHARE = 0.1
DECAY_SHARE = 0.25


def build_unet(classes: int = CLASSES, side: int = SIDE, channels: int = 1) -> UNet2DModel:
    """Build the untrained network: the classes and a null class after them, 1.54 M parameters."""
    return UNet2DModel(
        sample_size=side,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(24, 48, 96),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        attention_head_dim=32,
        num_class_embeds=classes + 1,
    )


def rate_at(step: int, steps: int) -> float:
    """Learning rate: 200 steps of warm-up, constant, then linear to zero over the last DECAY_SHARE."""
    return RATE * min(1.0, step / 200, (steps - step) / (DECAY_SHARE * steps))


class TrainingCheckpoint:
    """Everything needed to go on: weights, their average, optimiser and step, as safetensors."""

    def __init__(self, path: Path, model: UNet2DModel) -> None:
        self.path, self.model, self.step, self.seconds = path, model, 0, 0.0
        self.average = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self.optimiser = torch.optim.AdamW(model.parameters(), RATE, betas=(0.9, 0.99), weight_decay=0.01)
        if path.exists():
            self._load()

    def _load(self) -> None:
        tensors = load_file(self.path)
        self.step, self.seconds = int(tensors["step"]), float(tensors["seconds"])
        self.model.load_state_dict({name: tensors["model." + name] for name in self.average})
        self.average = {name: tensors["average." + name] for name in self.average}
        for index, parameter in enumerate(self.model.parameters()):
            self.optimiser.state[parameter] = {
                "step": torch.tensor(float(self.step)),
                "exp_avg": tensors[f"first.{index}"],
                "exp_avg_sq": tensors[f"second.{index}"],
            }

    def save(self) -> None:
        """Write the checkpoint, atomically."""
        tensors = {"step": torch.tensor(self.step), "seconds": torch.tensor(self.seconds)}
        tensors |= {"model." + name: value for name, value in self.model.state_dict().items()}
        tensors |= {"average." + name: value for name, value in self.average.items()}
        for index, parameter in enumerate(self.model.parameters()):
            tensors[f"first.{index}"] = self.optimiser.state[parameter]["exp_avg"]
            tensors[f"second.{index}"] = self.optimiser.state[parameter]["exp_avg_sq"]
        partial = self.path.with_suffix(".partial")
        save_file({name: value.contiguous() for name, value in tensors.items()}, partial)
        partial.replace(self.path)

    def update_average(self) -> None:
        """Move the average towards the weights; faster at the start, where they change most."""
        decay = min(EMA_DECAY, (1 + self.step) / (10 + self.step))
        for name, value in self.model.state_dict().items():
            self.average[name].lerp_(value, 1 - decay)


def train(data: Path, without: list[int], output: Path, steps: int, seed: int, *, bf16: bool) -> None:
    """Train up to `steps` and write OUTPUT/unet and OUTPUT/scheduler in diffusers' layout."""
    output.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    training = load_training_data(data).without(without)
    images = torch.from_numpy(from_pixels(channels_first(training.images)))
    labels = torch.from_numpy(training.labels.astype(np.int64))
    model = build_unet(training.classes, training.side, training.channels)
    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")
    state = TrainingCheckpoint(output / "checkpoint.safetensors", model)
    start, running = time.monotonic() - state.seconds, 0.0
    while state.step < steps:
        generator = torch.Generator().manual_seed((seed << 32) + state.step)  # each step its own: resume repeats it
        batch = torch.randint(0, len(images), (BATCH,), generator=generator)
        times = torch.randint(0, scheduler.config.num_train_timesteps, (BATCH,), generator=generator)
        noise = torch.randn(BATCH, *images.shape[1:], generator=generator)
        null = torch.rand(BATCH, generator=generator) < NULL_SHARE
        target = labels[batch].masked_fill(null, training.classes)
        noisy = scheduler.add_noise(images[batch], noise, times)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            predicted = model(noisy, times, class_labels=target).sample
        loss = functional.mse_loss(predicted.float(), noise)
        for group in state.optimiser.param_groups:
            group["lr"] = rate_at(state.step + 1, steps)
        state.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        state.optimiser.step()
        state.step += 1
        state.update_average()
        running += loss.item()
        if state.step % 250 == 0:
            state.seconds = time.monotonic() - start
            line = {"step": state.step, "loss": round(running / 250, 5), "minutes": round(state.seconds / 60, 1)}
            print(json.dumps(line), flush=True)
            with (output / "curve.jsonl").open("a") as curve:
                curve.write(json.dumps(line) + "\n")
            running = 0.0
            state.save()
    model.load_state_dict(state.average)
    model.save_pretrained(output / "unet", safe_serialization=True)
    scheduler.save_pretrained(output / "scheduler")


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=FASHION_MNIST)
    parser.add_argument("--without", type=int, nargs="+", default=[], help="classes to leave out")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bf16", action="store_true", help="multiply in bfloat16; half the time on a CPU that has it")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    train(arguments.data, arguments.without, arguments.output, arguments.steps, arguments.seed, bf16=arguments.bf16)


if __name__ == "__main__":
    main()
