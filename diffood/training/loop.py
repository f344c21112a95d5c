"""The training itself: steps, averaged weights, looks at held-out images, and when to end.

    warm-up | constant rate ............................ | rate falls to zero
    step 0  200                                     3/4 end              end

`end` is the number of steps asked for; it comes nearer where minutes are limited, or where the held-out loss has
stopped falling. What a step draws depends on the seed and its number alone, so that a training that was killed
continues as if it had not been.
"""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from diffood.errors import TrainingError
from diffood.runtime.images.pixels import from_pixels
from diffood.runtime.method.scoring import Array
from diffood.training.checkpoint import (
    CHECKPOINT,
    HeldOutLoss,
    TrainingIdentity,
    TrainingProgress,
    load_tensors,
    read_progress,
    require_same,
    save_checkpoint,
)
from diffood.training.images import TrainingImages
from diffood.training.labels import Labels
from diffood.training.picture import Denoise

TIMES = 1000
WARM_UP = 200  # steps
FALLING = 0.25  # share of the steps in which the rate falls
AVERAGE_DECAY = 0.9995
NULL_SHARE = 0.1  # of samples lose their label; Ho and Salimans 2022 found 0.1 to 0.2 best
LARGEST_GRADIENT = 1.0
HELD_OUT_SHARE, MOST_HELD_OUT = 0.05, 512
PATIENCE = 1 / 3  # of the steps done, in which the held-out loss must have fallen by
LEAST_GAIN = 1e-3  # of itself
FEWEST_LOOKS = 8  # at the held-out images, before a training may end early
SECONDS_BETWEEN_SAVES = 60.0


@dataclass(frozen=True)
class BatchSource:
    """Draws batches of a training: images, times, noise and labels.

    Attributes:
        images: All of them.
        labels: Of all.
        batch: Images per step.
        seed: Of the draws.
    """

    images: TrainingImages
    labels: Labels
    batch: int
    seed: int

    def split(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Indices of the images to train on, and of those held out."""
        order = np.random.default_rng(self.seed).permutation(len(self.images.ids))
        held_out = min(MOST_HELD_OUT, max(1, round(HELD_OUT_SHARE * len(order))))
        return order[held_out:], np.sort(order[:held_out])

    def pixels(self, indices: npt.NDArray[np.int64]) -> torch.Tensor:
        """Images float32 [B, C, H, W] in [-1, 1]."""
        return torch.from_numpy(from_pixels(self.images.pixels[indices]))

    def labels_of(self, indices: npt.NDArray[np.int64]) -> torch.Tensor | None:
        """Labels int64 [B]; None for a UNet without."""
        return torch.from_numpy(self.labels.values[indices]) if self.labels.count else None


class Training:
    """A UNet being trained.

    Attributes:
        network: A UNet2DModel.
        averaged: The same with averaged weights.
        best: State dict of the averaged weights with the smallest held-out loss.
        progress: How far it came.
    """

    def __init__(
        self,
        network: Any,
        batches: BatchSource,
        identity: TrainingIdentity,
        *,
        steps: int,
        minutes: float | None,
        folder: Path,
    ) -> None:
        self.device = torch.device(identity.device)
        self.network = network.to(self.device).train()
        self.averaged = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.best = {name: value.clone() for name, value in self.averaged.state_dict().items()}
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), identity.rate, betas=(0.9, 0.99), weight_decay=0.01
        )
        self.batches, self.identity, self.minutes, self.folder = batches, identity, minutes, folder
        self.trained_on, self.held_out = batches.split()
        alpha_bar = torch.from_numpy(noise_levels()).float()
        self._signal, self._noise = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        self.progress = TrainingProgress(
            identity=identity, step=0, end=steps, steps=steps, stalled=False, seconds=0, running=0, best=None, curve=()
        )
        if (folder / CHECKPOINT).is_file():
            self._continue(steps)

    @property
    def _networks(self) -> dict[str, Any]:
        return {"network": self.network.state_dict(), "averaged": self.averaged.state_dict(), "best": self.best}

    def _continue(self, steps: int) -> None:
        found = read_progress(self.folder)
        require_same(found.identity, self.identity, self.folder)
        load_tensors(self.folder, self._networks, self.optimiser, found.step)
        more_time = self.minutes is not None and found.step >= found.end and found.seconds < 60 * self.minutes
        end = found.end if found.steps == steps and not more_time else max(steps, found.step)
        self.progress = found.model_copy(update={"end": end, "steps": steps})

    def save(self) -> None:
        """Write the checkpoint."""
        save_checkpoint(self.folder, self.progress, self._networks, self.optimiser)

    def run(self, advance: Callable[[int], None], after_look: Callable[["Training"], None]) -> None:
        """Train to the end.

        Args:
            advance: Called with 1 after each step.
            after_look: Called after each look at the held-out images; the checkpoint is written by then.

        Raises:
            TrainingError: The loss is no number, or memory is short.
        """
        start = saved = time.monotonic()
        start -= self.progress.seconds
        while self.progress.step < self.progress.end:
            loss = self._checked_step()
            now = time.monotonic()
            done = self.progress.model_copy(
                update={
                    "step": self.progress.step + 1,
                    "running": self.progress.running + loss,
                    "seconds": now - start,
                }
            )
            if self.minutes is not None and done.seconds >= 60 * self.minutes:
                done = done.model_copy(update={"end": done.step})
            self.progress = done
            advance(1)
            if done.step % self.identity.evaluate_every == 0 or done.step == done.end:
                self._look()
                self.save()
                saved = time.monotonic()
                after_look(self)
            elif now - saved >= SECONDS_BETWEEN_SAVES:
                self.save()
                saved = time.monotonic()

    def _checked_step(self) -> float:
        try:
            loss = self._step()
        except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
            if "memory" not in str(error).lower() and not isinstance(error, MemoryError):
                raise
            raise TrainingError(
                f"Out of memory with {self.identity.batch} images per step; give a smaller --batch or --size."
            ) from None
        if not math.isfinite(loss):
            raise TrainingError(
                f"The loss became {loss} at step {self.progress.step + 1}; try --precision fp32, or another --seed."
            )
        return loss

    def _step(self) -> float:
        step, batches = self.progress.step, self.batches
        generator = torch.Generator().manual_seed((batches.seed << 32) + step)
        chosen = self.trained_on[torch.randint(0, len(self.trained_on), (batches.batch,), generator=generator).numpy()]
        times = torch.randint(0, TIMES, (batches.batch,), generator=generator)
        x, labels = batches.pixels(chosen), batches.labels_of(chosen)
        noise = torch.randn(x.shape, generator=generator)
        if labels is not None:
            null = torch.rand(batches.batch, generator=generator) < NULL_SHARE
            labels = labels.masked_fill(null, batches.labels.count - 1)
        for group in self.optimiser.param_groups:
            group["lr"] = rate_at(step + 1, self.progress.end, self.identity.rate)
        loss = self._loss(self.network, x, times, noise, labels)
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), LARGEST_GRADIENT)
        self.optimiser.step()
        decay = min(AVERAGE_DECAY, (1 + step) / (10 + step))  # follows faster at the start, where weights change most
        with torch.no_grad():
            torch._foreach_lerp_(list(self.averaged.parameters()), list(self.network.parameters()), 1 - decay)
        return float(loss.detach())

    def _loss(
        self, network: Any, x: torch.Tensor, times: torch.Tensor, noise: torch.Tensor, labels: torch.Tensor | None
    ) -> torch.Tensor:
        """Mean square error of the predicted noise."""
        noisy = self._signal[times, None, None, None] * x + self._noise[times, None, None, None] * noise
        labels = None if labels is None else labels.to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.identity.precision == "bf16"):
            predicted = network(noisy.to(self.device), times.to(self.device), class_labels=labels).sample
        return functional.mse_loss(predicted.float(), noise.to(self.device))

    def _look(self) -> None:
        """Measure the averaged weights on the held-out images, keep them if they are the best, and judge the end."""
        done, every = self.progress, self.identity.evaluate_every
        held_out = self.held_out_loss()
        steps = done.step - (done.curve[-1].step if done.curve else 0)
        look = HeldOutLoss(
            step=done.step, training=done.running / max(1, steps), held_out=held_out, seconds=done.seconds
        )
        best = min((earlier.held_out for earlier in done.curve), default=math.inf)
        if held_out < best:
            self.best = {name: value.clone() for name, value in self.averaged.state_dict().items()}
            done = done.model_copy(update={"best": done.step})
        done = done.model_copy(update={"running": 0.0, "curve": (*done.curve, look)})
        if self.minutes is not None and not done.stalled and done.step < done.end:
            left = max(0.0, 60 * self.minutes - done.seconds) / (done.seconds / done.step)
            done = done.model_copy(update={"end": min(done.steps, done.step + int(left))})
        if not done.stalled and done.step >= FEWEST_LOOKS * every and has_stalled(done.curve):
            end = min(done.end, math.ceil(done.step / (1 - FALLING)))
            done = done.model_copy(update={"stalled": True, "end": end})
        self.progress = done

    def held_out_loss(self) -> float:
        """Loss of the averaged weights on the held-out images, always with the same times and noise."""
        generator, total = torch.Generator().manual_seed(self.batches.seed), 0.0
        times = torch.linspace(0, TIMES - 1, len(self.held_out)).long()
        order = torch.randperm(len(times), generator=generator)
        for part in np.array_split(np.arange(len(times)), math.ceil(len(times) / self.batches.batch)):
            chosen = self.held_out[part]
            x = self.batches.pixels(chosen)
            noise = torch.randn(x.shape, generator=generator)
            with torch.no_grad():
                loss = self._loss(self.averaged, x, times[order[part]], noise, self.batches.labels_of(chosen))
            total += float(loss) * len(part)
        return total / len(times)

    def denoiser(self) -> Denoise:
        """Predicts the noise in images float32 [B, C, H, W] at one time, by the averaged weights."""

        def predict(x: Array, time: int, labels: npt.NDArray[np.int64] | None) -> Array:
            with torch.no_grad():
                asked = None if labels is None else torch.from_numpy(labels).to(self.device)
                times = torch.full((len(x),), time, device=self.device)
                found = self.averaged(torch.from_numpy(x).to(self.device), times, class_labels=asked).sample
            return np.asarray(found.float().cpu().numpy())

        return predict


def noise_levels() -> npt.NDArray[np.float64]:
    """The linear schedule of Ho et al. 2020, which diffusers' DDPMScheduler has by default: float64 [TIMES]."""
    return np.asarray(np.cumprod(1 - np.linspace(1e-4, 0.02, TIMES)))


def rate_at(step: int, end: int, rate: float) -> float:
    """Learning rate of a step, from 1: warm-up, constant, then linear to zero over the last FALLING of all steps."""
    return rate * min(1.0, step / WARM_UP, max(0, end - step) / (FALLING * end))


def has_stalled(curve: tuple[HeldOutLoss, ...]) -> bool:
    """Whether the last PATIENCE of the steps brought no held-out loss that is smaller by LEAST_GAIN."""
    before = [look.held_out for look in curve if look.step <= (1 - PATIENCE) * curve[-1].step]
    since = [look.held_out for look in curve if look.step > (1 - PATIENCE) * curve[-1].step]
    return bool(before) and min(since) > (1 - LEAST_GAIN) * min(before)
