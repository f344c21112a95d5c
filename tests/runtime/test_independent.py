"""The method written a second time, in torch and diffusers and from the paper's steps alone, agrees with the runtime.

Nothing of the runtime's schedules, lanes or scoring is used by the writing here; only the noise is shared, because
it is a rule and not a formula.
"""

import itertools
import math
import runpy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from diffood import zoo
from diffood.runtime.bundle import Bundle, open_bundle
from diffood.runtime.detector import Detector
from diffood.runtime.noise import content_key, draw_noise
from diffood.runtime.plan import Plan

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

Tensor = Any  # torch.Tensor, where torch is installed
Classify = Callable[[Tensor], tuple[Tensor, Tensor]]

BATCH = 5  # divides no case's trajectories: lanes of different steps, images and start times share every batch
TOLERANCE = 1e-3  # relative: FP32 rounding of two engines through dozens of steps, and no formula that was misread


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Models this small only lose by more threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- the second writing ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Models:
    """A UNet, its noise levels float64 [T] and what it predicts, and classify(x in [-1, 1]) -> (logits, features)."""

    unet: Any
    alpha_bar: Tensor
    prediction: str
    classify: Classify


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
        if not self.models.unet.config.num_class_embeds:
            return self._ask(x, i, None)
        conditional = self._ask(x, i, self.label)
        if self.beta == 0:
            return conditional
        null = torch.full_like(self.label, self.models.unet.config.num_class_embeds - 1)
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


def by_hand(models: Models, plan: Plan, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """by_start [N, T] of uint8 images [N, C, H, W]."""
    x = torch.from_numpy(pixels.astype(np.float32) / 127.5 - 1)
    writing = Writing(models.alpha_bar, plan.schedule == "reference")

    def outputs(images: Tensor) -> Tensor:
        values = models.classify(images)[0 if plan.space == "logits" else 1].double()
        return values / values.norm(dim=1, keepdim=True)

    label = models.classify(x)[0].argmax(1)
    denoiser = Denoiser(models, writing, label, plan.guidance)
    total = torch.zeros(len(x), len(plan.start_times), dtype=torch.float64)
    for repeat in range(plan.repeats):
        drawn = [draw_noise(content_key(image.numpy()), plan.seed, repeat, tuple(image.shape)) for image in x]
        noise = torch.from_numpy(np.stack(drawn))

        def noised(level: float, noise: Tensor = noise) -> Tensor:
            return math.sqrt(level) * x + math.sqrt(1 - level) * noise

        original = noised(float(models.alpha_bar[0])).clamp(-1, 1) if plan.schedule == "reference" else x
        before = outputs(original)
        for column, start in enumerate(plan.start_times):
            level = float(models.alpha_bar[start])
            restored = denoiser.run(noised(level), plan.sampler, writing.indices(start, plan.stride))
            after = outputs(restored.clamp(-1, 1))
            total[:, column] += torch.linalg.vector_norm(before - after, ord=1 if plan.norm == "l1" else 2, dim=1)
            if plan.compare == "neighbour":
                before = after
    return (total / plan.repeats).numpy()


def assert_same_scores(models: Models, bundle: Bundle, plan: Plan, pixels: npt.NDArray[np.uint8]) -> None:
    """Both writings agree for every image and start time, and the score is the mean over start times."""
    with torch.inference_mode():
        expected = by_hand(models, plan, pixels)
    assert expected.min() > 0, "a score of zero compares nothing"
    found = Detector.load(bundle, plan, batch=BATCH, threads=1).score(pixels)
    np.testing.assert_allclose(found.by_start, expected, rtol=TOLERANCE)
    np.testing.assert_allclose(found.score, expected.mean(axis=1), rtol=TOLERANCE)


def noise_levels(scheduler: Any) -> Tensor:
    """alpha_bar in float64 from the betas diffusers made."""
    return torch.cumprod(1 - scheduler.betas.double(), dim=0)


# --- the zoo's trained models on real images ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def zoo_models(zoo_bundle: Bundle) -> Models:
    """The weights the zoo's bundle was exported from."""
    from safetensors.torch import load_file

    from diffood.export.sources.weights import hash_file
    from diffood.zoo.classifier import paired_resnet

    exported = zoo_bundle.manifest.classifier.weights_sha256, zoo_bundle.manifest.unet.weights_sha256
    present = hash_file(zoo.CLASSIFIER_WEIGHTS), hash_file(zoo.UNET / "diffusion_pytorch_model.safetensors")
    assert exported == present, "the zoo's bundle was exported from other weights than those beside it"
    classifier = paired_resnet()
    classifier.load_state_dict(load_file(zoo.CLASSIFIER_WEIGHTS))
    classifier.eval()
    scheduler = diffusers.DDPMScheduler.from_pretrained(zoo.UNET.parent / "scheduler")
    return Models(
        unet=diffusers.UNet2DModel.from_pretrained(zoo.UNET).eval(),
        alpha_bar=noise_levels(scheduler),
        prediction=scheduler.config.prediction_type,
        classify=lambda x: classifier((x + 1) / 2),
    )


@pytest.fixture(scope="module")
def four(clothes: npt.NDArray[np.uint8], digits: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Two in-distribution and two out-of-distribution images, uint8 [4, 1, 28, 28]."""
    return np.concatenate([clothes[:2], digits[:2]])[:, None]


def plan(**choices: Any) -> Plan:
    """Two start times of three and six steps, two repeats, guided, unless chosen otherwise."""
    return Plan.model_validate({"start_times": (120, 240), "stride": 40, "repeats": 2, "guidance": 2.0, **choices})


SCHEDULES, SAMPLERS = ("textbook", "reference"), ("ddim", "pndm2", "pndm4")
EVERY_SAMPLER = [
    plan(schedule=schedule, sampler=sampler, guidance=guidance)
    for schedule in SCHEDULES
    for sampler in SAMPLERS
    for guidance in (2.0, 0.0)
]
EVERY_COMPARISON = [
    plan(start_times=(60, 120), schedule=schedule, space=space, norm=norm, compare=compare, seed=5)
    for schedule in SCHEDULES
    for space, norm, compare in (
        ("logits", "l2", "neighbour"),
        ("features", "l1", "neighbour"),
        ("features", "l2", "origin"),
    )
]
SHORT_OR_UNEVEN = [
    # One step of improved Euler, two of Runge-Kutta: every evaluation of the last one is near the end, one is at it.
    *(plan(schedule=schedule, sampler="pndm2", start_times=(120,), stride=120) for schedule in SCHEDULES),
    *(plan(schedule=schedule, sampler="pndm4", start_times=(240,), stride=120) for schedule in SCHEDULES),
    # An odd stride puts Runge-Kutta's midpoints between two indices.
    *(plan(schedule=schedule, sampler="pndm4", start_times=(75, 125), stride=25) for schedule in SCHEDULES),
    # A start the stride does not divide: the last step is the shorter one, and lengths differ.
    *(plan(schedule=schedule, start_times=(50, 130, 333), stride=60) for schedule in SCHEDULES),
    # A guidance between the two above, and one long way down in few steps.
    plan(guidance=0.5, start_times=(480,), stride=120),
]


def described(plan: Plan) -> str:
    """The choices of a plan as a test's name."""
    starts = "+".join(map(str, plan.start_times))
    names = (plan.schedule, plan.sampler, f"{starts}by{plan.stride}", f"beta{plan.guidance:g}")
    return "-".join((*names, plan.space, plan.norm, plan.compare))


@pytest.mark.parametrize("plan", [*EVERY_SAMPLER, *EVERY_COMPARISON, *SHORT_OR_UNEVEN], ids=described)
def test_runtime_agrees_with_a_second_writing_of_the_method(
    zoo_models: Models, zoo_bundle: Bundle, four: npt.NDArray[np.uint8], plan: Plan
) -> None:
    assert_same_scores(zoo_models, zoo_bundle, plan, four)


# --- other kinds of UNet, tiny and untrained ---------------------------------------------------------------------

CLASSES = 4
SIDE = 8
TINY_CLASSIFIER = '''
"""A classifier of {channels}x8x8 images, for a test."""

import torch
from torch import nn


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.head = nn.Linear({channels} * 64, 12), nn.Linear(12, 4)
        generator = torch.Generator().manual_seed(11)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3, generator=generator)

    def forward(self, x):
        features = torch.tanh(self.hidden(x.flatten(1)))
        logits = self.head(features)
        return {returned}


def tiny():
    return Tiny()
'''


@dataclass(frozen=True)
class Kind:
    """A kind of UNet and what surrounds it: labels it knows, outputs a channel, schedule, prediction."""

    name: str
    channels: int
    labels: int | None
    outputs: int
    beta_schedule: str
    prediction: str
    mean_std: tuple[tuple[float, ...], tuple[float, ...]] | None = None


KINDS = [
    Kind("unlabelled-sample", 1, None, 1, "scaled_linear", "sample"),
    Kind("no-null-class-v", 1, CLASSES, 1, "squaredcos_cap_v2", "v_prediction"),
    Kind("learned-sigma-rgb", 3, None, 2, "linear", "epsilon", ((0.5, 0.4, 0.3), (0.2, 0.3, 0.25))),
]


@dataclass(frozen=True)
class Tiny:
    """An exported kind: its bundle, and the models it was made of."""

    kind: Kind
    bundle: Bundle
    models: Models


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.name)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """One kind of UNet with random weights, exported once."""
    pytest.importorskip("onnxscript")
    from diffood.export.build import Sources, export_bundle
    from diffood.export.sources.classifier import Preprocessing

    kind: Kind = request.param
    folder = tmp_path_factory.mktemp(kind.name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        unet = diffusers.UNet2DModel(
            sample_size=SIDE,
            in_channels=kind.channels,
            out_channels=kind.outputs * kind.channels,
            layers_per_block=1,
            block_out_channels=(16, 16),
            down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"),
            norm_num_groups=8,
            num_class_embeds=kind.labels,
            add_attention=False,  # the zoo's UNet has it; without, an export takes half the time
        ).eval()
    unet.save_pretrained(folder / "unet")
    scheduler = diffusers.DDPMScheduler(beta_schedule=kind.beta_schedule, prediction_type=kind.prediction)
    scheduler.save_pretrained(folder / "scheduler")
    alone = kind.mean_std is not None  # logits alone: the exporter finds the features itself
    code = TINY_CLASSIFIER.format(channels=kind.channels, returned="logits" if alone else "logits, features")
    (folder / "tiny.py").write_text(code)
    mean, std = kind.mean_std or ((0.0,), (1.0,))
    export_bundle(
        Sources(folder / "unet", f"{folder / 'tiny.py'}:tiny", preprocessing=Preprocessing(mean=mean, std=std)),
        folder / "bundle",
        overwrite=False,
        report=print,
    )
    return Tiny(
        kind,
        open_bundle(folder / "bundle"),
        Models(unet, noise_levels(scheduler), kind.prediction, tiny_classify(folder / "tiny.py", mean, std)),
    )


def tiny_classify(file: Path, mean: tuple[float, ...], std: tuple[float, ...]) -> Classify:
    """The factory's module behind mean and std, its features taken by repeating its first half."""
    model = runpy.run_path(str(file))["tiny"]().eval()

    def classify(x: Tensor) -> tuple[Tensor, Tensor]:
        image = ((x + 1) / 2 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
        features = torch.tanh(model.hidden(image.flatten(1)))
        return model.head(features), features

    return classify


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_kind_of_unet_agrees_with_the_second_writing(tiny: Tiny, schedule: str, sampler: str) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (4, tiny.kind.channels, SIDE, SIDE), dtype=np.uint8)
    for starts, stride in (((120, 240), 40), ((150,), 75)):
        chosen = plan(schedule=schedule, sampler=sampler, guidance=0.0, start_times=starts, stride=stride)
        assert_same_scores(tiny.models, tiny.bundle, chosen, pixels)
        features = chosen.changed({"space": "features", "norm": "l2", "compare": "neighbour"})
        assert_same_scores(tiny.models, tiny.bundle, features, pixels)


def test_kinds_of_unet_are_what_the_manifest_says(tiny: Tiny) -> None:
    entry = tiny.bundle.manifest.unet
    labels = {None: "none", CLASSES: "class"}
    assert (entry.labels, entry.prediction) == (labels[tiny.kind.labels], tiny.kind.prediction)
    np.testing.assert_allclose(tiny.bundle.alpha_bar, tiny.models.alpha_bar.numpy(), rtol=1e-4)
