"""The method written a second time, in torch and diffusers and from the paper's steps alone; tests compare with it.

Nothing of the runtime's schedules, graphs, scoring or witnesses is used here; only the noise is shared, because it is a
rule and not a formula.
"""

import itertools
import math
import runpy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from small_models import CLASSIFIER, CLASSIFIER_WEIGHTS, FACTORY, SCHEDULER, UNET

from diffood.runtime.bundle.bundle import Bundle
from diffood.runtime.method.noise import make_pool
from diffood.runtime.method.plan import Plan

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

Tensor = Any  # torch.Tensor, where torch is installed
Classify = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Models:
    """A UNet, its noise levels float64 [T] and what it predicts, and classify(x in [-1, 1]) -> (logits, features).

    labels: it knows, the null label last. encode, decode: from images to what is noised, and back.
    """

    unet: Any
    alpha_bar: Tensor
    prediction: str
    classify: Classify
    labels: int = 0
    encode: Callable[[Tensor], Tensor] = lambda x: x
    decode: Callable[[Tensor], Tensor] = lambda z: z


@dataclass(frozen=True)
class Writing:
    """One convention in the paper's own terms: i is the number the UNet is asked at."""

    alpha_bar: Tensor
    reference: bool

    def indices(self, start: int, stride: int) -> list[int]:
        """i of every node, down to the end: start, start - s, ..., 0, or the same less one in the paper's code."""
        shift = 1 if self.reference else 0
        inner = range(start - shift, 0 - shift, -stride)
        return [*inner, -shift]

    def alpha(self, i: float) -> float:
        """The noise level at i: the paper's code takes alpha_bar[i + 1] and never reaches 1, the textbook does."""
        if self.reference:
            return float(self.alpha_bar[math.floor(i) + 1])
        return float(self.alpha_bar[math.floor(i)]) if i > 0 else 1.0

    def stage_alpha(self, i: float) -> float:
        """The noise level of an image that a UNet is about to be asked of: none saw less noise than alpha_bar[0]'s."""
        return min(self.alpha(i), float(self.alpha_bar[0]))


class Denoiser:
    """eps of one batch of images with their labels, and the three samplers as the papers print them."""

    def __init__(self, models: Models, writing: Writing, label: Tensor, beta: float) -> None:
        self.models, self.writing, self.label, self.beta = models, writing, label, beta

    def eps(self, x: Tensor, i: float) -> Tensor:
        """Guided noise prediction: (1 + beta)·eps(label) - beta·eps(null)."""
        if not self.models.labels:
            return self._ask(x, i, None)
        conditional = self._ask(x, i, self.label)
        if self.beta == 0:
            return conditional
        null = torch.full_like(self.label, self.models.labels - 1)
        return (1 + self.beta) * conditional - self.beta * self._ask(x, i, null)

    def _ask(self, x: Tensor, i: float, label: Tensor | None) -> Tensor:
        times = torch.full((len(x),), float(i))
        output = self.models.unet(x, times, class_labels=label).sample[:, : x.shape[1]]
        level = self.writing.stage_alpha(i)
        if self.models.prediction == "sample":
            return (x - math.sqrt(level) * output) / math.sqrt(1 - level)
        if self.models.prediction == "v_prediction":
            return math.sqrt(level) * output + math.sqrt(1 - level) * x
        return output

    def stage(self, x: Tensor, here: float, there: float, eps: Tensor) -> Tensor:
        """A move to an image that the UNet will be asked of."""
        return self._to(x, self.writing.alpha(here), self.writing.stage_alpha(there), eps)

    def move(self, x: Tensor, here: float, there: float, eps: Tensor) -> Tensor:
        """One deterministic DDIM step."""
        return self._to(x, self.writing.alpha(here), self.writing.alpha(there), eps)

    @staticmethod
    def _to(x: Tensor, a: float, b: float, eps: Tensor) -> Tensor:
        """Predict the clean image, noise it again less."""
        clean = (x - math.sqrt(1 - a) * eps) / math.sqrt(a)
        return math.sqrt(b) * clean + math.sqrt(1 - b) * eps

    def improved_euler(self, x: Tensor, here: int, there: int) -> tuple[Tensor, Tensor]:
        """(first eps, eps to step with)."""
        e1 = self.eps(x, here)
        e2 = self.eps(self.stage(x, here, there, e1), there)
        return e1, (e1 + e2) / 2

    def runge_kutta(self, x: Tensor, here: int, there: int) -> tuple[Tensor, Tensor]:
        """(first eps, eps to step with)."""
        middle = (here + there) / 2
        e1 = self.eps(x, here)
        e2 = self.eps(self.stage(x, here, middle, e1), middle)
        e3 = self.eps(self.stage(x, here, middle, e2), middle)
        e4 = self.eps(self.stage(x, here, there, e3), there)
        return e1, (e1 + 2 * e2 + 2 * e3 + e4) / 6

    def run(self, x: Tensor, sampler: str, nodes: list[int]) -> Tensor:
        """From the first node to the last; the history keeps each step's first eps, newest last."""
        history: list[Tensor] = []
        for here, there in itertools.pairwise(nodes):
            if sampler == "pndm2" and not history:
                first, eps = self.improved_euler(x, here, there)
            elif sampler == "pndm4" and len(history) < 3:
                first, eps = self.runge_kutta(x, here, there)
            else:
                first = eps = self.eps(x, here)
                if sampler == "pndm2":
                    eps = (3 * first - history[-1]) / 2
                if sampler == "pndm4":
                    eps = (55 * first - 59 * history[-1] + 37 * history[-2] - 9 * history[-3]) / 24
            history.append(first)
            x = self.move(x, here, there, eps)
        return x


@dataclass(frozen=True)
class Pass:
    """by_start float64 [N, T]; of the images themselves logits [N, K] and x in [-1, 1]; denoised [N, R, T, C, H, W]."""

    by_start: npt.NDArray[np.float64]
    logits: npt.NDArray[np.float32]
    x: Tensor
    denoised: Tensor


def by_hand(models: Models, plan: Plan, pixels: npt.NDArray[np.uint8]) -> Pass:
    """What the method leaves of uint8 images [N, C, H, W]; denoised float32 [N, R, T, C, H, W]."""
    x = torch.from_numpy(pixels.astype(np.float32) / 127.5 - 1)
    writing = Writing(models.alpha_bar, plan.schedule == "reference")

    def outputs(images: Tensor) -> Tensor:
        values = models.classify(images)[0 if plan.space == "logits" else 1].double()
        return values / values.norm(dim=1, keepdim=True)

    logits = models.classify(x)[0]
    label = logits.argmax(1)
    denoiser = Denoiser(models, writing, label, plan.guidance)
    z = models.encode(x)
    total = torch.zeros(len(x), len(plan.start_times), dtype=torch.float64)
    images = torch.zeros(len(x), plan.repeats, len(plan.start_times), *x.shape[1:])
    pool = make_pool(plan.seed, plan.repeats, math.prod(x.shape[1:]), math.prod(z.shape[1:]))
    drawn = pool.draw(pixels, tuple(z.shape[1:]))
    for repeat in range(plan.repeats):
        noise = torch.from_numpy(drawn[repeat])

        def noised(level: float, noise: Tensor = noise) -> Tensor:
            return math.sqrt(level) * z + math.sqrt(1 - level) * noise

        def seen(latents: Tensor) -> Tensor:
            return models.decode(latents).clamp(-1, 1)

        original = seen(noised(float(models.alpha_bar[0]))) if plan.schedule == "reference" else x
        before = outputs(original)
        for column, start in enumerate(plan.start_times):
            level = float(models.alpha_bar[start])
            restored = seen(denoiser.run(noised(level), plan.sampler, writing.indices(start, plan.stride)))
            images[:, repeat, column] = restored
            after = outputs(restored)
            total[:, column] += torch.linalg.vector_norm(before - after, ord=1 if plan.norm == "l1" else 2, dim=1)
            if plan.compare == "neighbour":
                before = after
    return Pass((total / plan.repeats).numpy(), logits.numpy(), x, images)


def noise_levels(scheduler: Any) -> Tensor:
    """alpha_bar in float64 from the betas diffusers made."""
    return torch.cumprod(1 - scheduler.betas.double(), dim=0)


def load_small_models(bundle: Bundle) -> Models:
    """The weights the small bundle was exported from."""
    from safetensors.torch import load_file

    from diffood.export.sources.weights import hash_files

    exported = bundle.manifest.classifier.weights_sha256, bundle.manifest.unet.weights_sha256
    present = hash_files([CLASSIFIER_WEIGHTS]), hash_files([UNET / "diffusion_pytorch_model.safetensors"])
    assert exported == present, "the small bundle was exported from other weights than those next to it"
    classifier = runpy.run_path(str(CLASSIFIER))[FACTORY]()
    classifier.load_state_dict(load_file(CLASSIFIER_WEIGHTS))
    classifier.eval()
    scheduler = diffusers.DDPMScheduler.from_pretrained(SCHEDULER)
    unet = diffusers.UNet2DModel.from_pretrained(UNET).eval()
    return Models(
        unet=unet,
        labels=unet.config.num_class_embeds,
        alpha_bar=noise_levels(scheduler),
        prediction=scheduler.config.prediction_type,
        classify=lambda x: classifier((x + 1) / 2),
    )
