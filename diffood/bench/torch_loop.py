"""The paper's own loop in torch: what `diffood bench` compares with. Nothing here is exported.

One start time after the other, each noised anew; the repeats of an image are rows of one batch, which guidance doubles.
Noise comes from torch's generator, as in the paper's code. With an autoencoder all of this is done to latents, which
are decoded before they are clamped and classified.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from diffood.bench.compare import WHY_UNET
from diffood.errors import ExportError, MissingExtraError
from diffood.export.graphs.autoencoder import DecodeGraph, EncodeGraph
from diffood.export.graphs.modules import ClassifyGraph
from diffood.export.sources.model_sources import ModelSources, load_models
from diffood.export.sources.unets.unet import UNet
from diffood.runtime.bundle.bundle import Bundle, Manifest, open_bundle
from diffood.runtime.images.pixels import Pixels
from diffood.runtime.method.plan import Plan
from diffood.runtime.method.schedule import epsilon_coefficients
from diffood.runtime.records import one_line

Tensor = torch.Tensor


@dataclass(frozen=True)
class TorchVariant:
    """How the loop runs.

    Attributes:
        compiled: The UNet by torch.compile.
        half: Models in FP16, channels last; what is between them in FP32.
        gpu: On the GPU, where FP32 is without TF32.
    """

    compiled: bool = False
    half: bool = False
    gpu: bool = False


class OfficialLoop:
    """Liu et al.'s loop for a DDIM plan, in either convention; scores are its jumps of the logits.

    rows: of one batch, of which every image takes as many as the plan has repeats. evaluations: of the UNet, so far.
    """

    meter = None  # torch's engine and its loop cannot be told apart

    def __init__(
        self, models: ModelSources, bundle: Bundle, plan: Plan, rows: int, variant: TorchVariant = TorchVariant()
    ) -> None:
        _require_paper(plan)
        entry = bundle.require_unet(WHY_UNET)
        (unet, classifier), image = load_models(models), bundle.manifest.image
        _require_same(bundle.manifest, unet, classifier.sha256)
        same = np.array_equal(unet.schedule.alpha_bar, bundle.alpha_bar)
        if not same or unet.schedule.prediction != entry.prediction:
            raise ExportError(
                f"The UNet's schedule ({unet.schedule.origin}) is not that of the bundle "
                f"({entry.schedule_origin}): give the --scheduler it was exported with."
            )
        self.device = torch.device("cuda" if variant.gpu else "cpu")
        self.dtype = torch.float16 if variant.half else torch.float32
        self.unet: Callable[..., tuple[Tensor, ...]] = self._placed(unet.model)
        self.classify = self._placed(ClassifyGraph(classifier, image.channels, image.height, image.width).eval())
        self.encode, self.decode = (
            self._placed(graph(unet.autoencoder).eval()) if unet.autoencoder else torch.nn.Identity()
            for graph in (EncodeGraph, DecodeGraph)
        )
        self.noised = bundle.manifest.noised_shape
        self.channels, self.labelled = unet.channels, unet.label_count > 0
        self.null, self.prediction = unet.label_count - 1, entry.prediction
        self.plan, self.grid = plan, plan.grid(bundle.alpha_bar)
        self.images, self.evaluations = max(1, rows // plan.repeats), 0

    def _placed(self, model: torch.nn.Module) -> torch.nn.Module:
        """A model on the device and in the precision of the loop."""
        placed = model.to(self.device)
        return placed if self.dtype == torch.float32 else placed.half().to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def run(self, pixels: Pixels) -> int:
        """Score images uint8 [N, C, H, W], a batch at a time; returns the UNet evaluations spent."""
        before = self.evaluations
        for first in range(0, len(pixels), self.images):
            images = torch.from_numpy(pixels[first : first + self.images]).to(self.device).float() / 127.5 - 1
            noise = torch.randn(self.plan.repeats, len(images), *self.noised, device=self.device)
            self.score(images, noise).cpu()
        return self.evaluations - before

    def score(self, x: Tensor, noise: Tensor) -> Tensor:
        """The jump float32 [N, T] of images [N, C, H, W], with noise [R, N, ...] of the shape of what is noised.

        All start times share it.
        """
        repeats, count = noise.shape[:2]
        logits = self.classify(x.to(self.dtype))[0].float()
        label = logits.argmax(dim=1).repeat(repeats)
        rows, noise = self.encode(x.to(self.dtype)).float().repeat(repeats, 1, 1, 1), noise.flatten(0, 1)
        signal, sigma = self.grid.origin_scale()
        origin = torch.nn.functional.normalize(logits, dim=1).repeat(repeats, 1)
        if sigma:
            origin = self.normalised(signal * rows + sigma * noise)
        columns = []
        for start in self.plan.start_times:
            level = self.grid.level(start)
            denoised = self.denoise(math.sqrt(level) * rows + math.sqrt(1 - level) * noise, label, start)
            distance = (self.normalised(denoised) - origin).abs().sum(dim=1)
            columns.append(distance.reshape(repeats, count).mean(dim=0))
        return torch.stack(columns, dim=1)

    def normalised(self, x: Tensor) -> Tensor:
        """Logits of clamped images, of decoded latents, divided by their L2 norm."""
        logits = self.classify(self.decode(x.to(self.dtype)).clamp(-1, 1))[0].float()
        return torch.nn.functional.normalize(logits, dim=1)

    def denoise(self, x: Tensor, label: Tensor, start: int) -> Tensor:
        """DDIM from `start` to the end."""
        for t, t_next in itertools.pairwise([*range(start, 0, -self.plan.stride), 0]):
            level, level_next = self.grid.level(t), self.grid.level(t_next)
            p_x, p_m = epsilon_coefficients(self.prediction, level)
            epsilon = p_x * x + p_m * self.guided(x, self.grid.asked(t), label)
            clean = (x - math.sqrt(1 - level) * epsilon) / math.sqrt(level)
            x = math.sqrt(level_next) * clean + math.sqrt(1 - level_next) * epsilon
        return x

    def guided(self, x: Tensor, time: float, label: Tensor) -> Tensor:
        """The UNet's output, guided by (1 + beta)·output(label) - beta·output(null) where the plan guides."""
        beta = self.plan.guidance
        if beta == 0:
            return self.predict(x, time, label)
        output = self.predict(torch.cat([x, x]), time, torch.cat([label, torch.full_like(label, self.null)]))
        conditional, unconditional = output.chunk(2)
        return (1 + beta) * conditional - beta * unconditional

    def predict(self, x: Tensor, time: float, label: Tensor) -> Tensor:
        """One evaluation per row; of a learned sigma's 2C outputs the first C are the prediction."""
        self.evaluations += len(x)
        times = torch.full((len(x),), time, device=x.device)
        labels = label if self.labelled else None
        output = self.unet(x.to(self.dtype), times, class_labels=labels, return_dict=False)[0]
        return output[:, : self.channels].float()


def sees_gpu() -> bool:
    """Whether torch can use a GPU here."""
    return torch.cuda.is_available()


def open_torch_loop(
    path: Path, models: ModelSources, plan: Plan, threads: int, variant: TorchVariant, rows: int
) -> OfficialLoop:
    """The loop with the models of the bundle at `path`, compiled for this batch where the variant is.

    threads: 0 leaves them to torch. Raises MissingExtraError, and ExportError where the models do not load, are not the
    bundle's, or torch cannot compile them here.
    """
    if threads:
        torch.set_num_threads(threads)
    try:
        loop = OfficialLoop(models, open_bundle(path), plan, rows, variant)
    except ImportError as error:
        raise MissingExtraError(f"needs {error.name}: pip install 'diffood[export]'") from None
    if variant.gpu:  # on by default for convolutions, of which it keeps ten bits
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    if variant.compiled:
        loop.unet = torch.compile(loop.unet, dynamic=False)
    if variant.compiled or variant.half:
        image = open_bundle(path).manifest.image
        black = np.zeros((loop.images, image.channels, image.height, image.width), np.uint8)
        what = "torch.compile" if variant.compiled else "FP16 in torch"
        try:
            loop.run(black)
        except Exception as error:  # a missing compiler, or a layer that does not run in FP16: one of a dozen types
            reason = one_line(error)[:200]
            raise ExportError(f"{what} does not work here: {type(error).__name__}: {reason}") from None
    return loop


def _require_same(manifest: Manifest, unet: UNet, classifier: str) -> None:
    none = "0" * 64
    for what, found, wanted in (
        ("UNet", unet.sha256, manifest.unet.weights_sha256 if manifest.unet else none),
        ("classifier", classifier, manifest.classifier.weights_sha256),
        (
            "autoencoder",
            unet.autoencoder.sha256 if unet.autoencoder else none,
            manifest.latent.weights_sha256 if manifest.latent else none,
        ),
    ):
        if found != wanted:
            raise ExportError(
                f"The {what}'s weights have sha256 {found[:12]}…, the bundle was exported from {wanted[:12]}…: "
                "give the models that it was exported from."
            )


def _require_paper(plan: Plan) -> None:
    if plan.sampler != "ddim" or (plan.space, plan.norm, plan.compare) != ("logits", "l1", "origin"):
        raise ExportError(
            f"The loop in torch takes DDIM plans that compare logits with the image itself by L1, not {plan.sampler}, "
            f"{plan.space}, {plan.compare}, {plan.norm}."
        )
