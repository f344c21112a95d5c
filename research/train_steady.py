"""Trains the steady half of the zoo's classifier and joins both: python -m research.train_steady --help.

Starts from the plain half and adds to the cross-entropy what plain DiffOOD measures: how far the unit vector of the
logits jumps between a training image and its denoised version. An image known to be in-distribution should not jump. No
image of another distribution is used.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from diffood.zoo.classifier import PairedResNet, SmallResNet
from research.datasets import FASHION_MNIST, load_training_data
from research.train_classifier import accuracy, as_tensors, augment

THIRD = 32  # rows of a batch: images, images that were denoised, and their denoised versions
PEAK_RATE = 0.02
EMA_DECAY = 0.995
JUMP_WEIGHT = 1.0
REPORT_EVERY = 100  # steps


def train(data: Path, parts: list[Path], plain: Path, output: Path, steps: int, seed: int, *, bf16: bool) -> None:
    """Fine-tune a copy of the PLAIN weights; write OUTPUT (safetensors, both halves) and OUTPUT.json (the curve)."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    training = load_training_data(data)
    images, labels = as_tensors(training.images, training.labels)
    loaded = [np.load(part, allow_pickle=False) for part in parts]
    chosen = torch.from_numpy(np.concatenate([part["chosen"] for part in loaded]))
    pixels = np.concatenate([part["denoised"] for part in loaded]).astype(np.float32)
    denoised = (torch.from_numpy(pixels)[:, None] + 1) / 2
    model = SmallResNet()
    model.load_state_dict(load_file(plain))
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # half the time of the other layout
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY), use_buffers=True)
    optimiser = torch.optim.SGD(model.parameters(), PEAK_RATE, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_RATE, total_steps=steps, pct_start=0.2)
    curve, start, losses, jumps = [], time.monotonic(), 0.0, 0.0
    model.train()
    for step in range(1, steps + 1):
        batch = torch.randint(0, len(images), (THIRD,), generator=generator)
        pair = torch.randint(0, len(chosen), (THIRD,), generator=generator)
        drawn = generator.get_state()  # an image and its denoised version are shifted and mirrored in the same way
        before = augment(images[chosen[pair]], generator, mirrored=training.mirrored)
        generator.set_state(drawn)
        after = augment(denoised[pair], generator, mirrored=training.mirrored)
        inputs = torch.cat([augment(images[batch], generator, mirrored=training.mirrored), before, after])
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(inputs.contiguous(memory_format=torch.channels_last))[0].float()
        targets = torch.cat([labels[batch], labels[chosen[pair]], labels[chosen[pair]]])
        loss = functional.cross_entropy(logits, targets)
        unit = functional.normalize(logits, dim=1)
        jump = (unit[THIRD : 2 * THIRD] - unit[2 * THIRD :]).abs().sum(dim=1).mean()
        optimiser.zero_grad()
        (loss + JUMP_WEIGHT * jump).backward()
        optimiser.step()
        schedule.step()
        average.update_parameters(model)
        losses, jumps = losses + loss.item(), jumps + jump.item()
        if step % REPORT_EVERY == 0:
            line = {"step": step, "loss": round(losses / REPORT_EVERY, 4), "jump": round(jumps / REPORT_EVERY, 4)}
            curve.append({**line, "minutes": round((time.monotonic() - start) / 60, 1)})
            print(json.dumps(curve[-1]), flush=True)
            losses, jumps = 0.0, 0.0
    pair_model = PairedResNet()
    pair_model.plain.load_state_dict(load_file(plain))
    pair_model.steady.load_state_dict(average.module.state_dict())
    save_file({name: value.contiguous() for name, value in pair_model.state_dict().items()}, output)
    result = accuracy(pair_model, *as_tensors(training.held_out, training.held_out_labels))
    print(f"test accuracy {result:.4f}")
    report = {"test_accuracy": result, "steps": steps, "seed": seed, "rows": 3 * THIRD, "curve": curve}
    output.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=FASHION_MNIST)
    parser.add_argument("--denoised", type=Path, nargs="+", required=True, help="what denoise_training wrote")
    parser.add_argument("--plain", type=Path, required=True, help="what train_classifier wrote")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=937)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bf16", action="store_true", help="multiply in bfloat16; half the time on a CPU that has it")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    train(
        arguments.data,
        arguments.denoised,
        arguments.plain,
        arguments.output,
        arguments.steps,
        arguments.seed,
        bf16=arguments.bf16,
    )


if __name__ == "__main__":
    main()
