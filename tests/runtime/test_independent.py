"""The method as second_writing.py has it agrees with the runtime, in every schedule, sampler and kind of UNet."""

import itertools
import runpy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from second_writing import Classify, Models, Tensor, by_hand, diffusers, load_small_models, noise_levels, torch

from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.detector import Detector
from diffood.runtime.method.plan import Plan

BATCH = 5
TOLERANCE = 1e-3  # relative: FP32 rounding of two engines through dozens of steps, and no formula that was misread


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Models this small only lose by more threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def assert_same_scores(models: Models, bundle: Bundle, plan: Plan, pixels: npt.NDArray[np.uint8]) -> None:
    """Both writings agree for every image and start time, and the score is the mean over start times."""
    with torch.inference_mode():
        expected = by_hand(models, plan, pixels).by_start
    assert expected.min() > 0, f"{plan}: a score of zero compares nothing"
    found = Detector.load(bundle, plan, batch=BATCH, threads=1).score(pixels)
    np.testing.assert_allclose(found.by_start, expected, rtol=TOLERANCE, err_msg=str(plan))
    np.testing.assert_allclose(found.score, expected.mean(axis=1), rtol=TOLERANCE, err_msg=str(plan))


# --- small trained models on real images ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def models(small_bundle: Bundle) -> Models:
    """The weights the small bundle was exported from."""
    return load_small_models(small_bundle)


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


@pytest.mark.parametrize(
    "plans", [EVERY_SAMPLER, EVERY_COMPARISON, SHORT_OR_UNEVEN], ids=["samplers", "comparisons", "short or uneven"]
)
def test_runtime_agrees_with_a_second_writing_of_the_method(
    models: Models, small_bundle: Bundle, four: npt.NDArray[np.uint8], plans: list[Plan]
) -> None:
    for chosen in plans:
        assert_same_scores(models, small_bundle, chosen, four)


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
    Kind("most-at-once", 3, CLASSES, 2, "squaredcos_cap_v2", "v_prediction", ((0.5, 0.4, 0.3), (0.2, 0.3, 0.25))),
]


@dataclass(frozen=True)
class Tiny:
    """An exported kind: its bundle, and the models it was made of."""

    kind: Kind
    bundle: Bundle
    models: Models


# Each export takes eight seconds: one kind in the quick tier, which has most of what the others have.
TIERS = [pytest.param(kind, marks=() if kind is KINDS[-1] else pytest.mark.slow) for kind in KINDS]


@pytest.fixture(scope="module", params=TIERS, ids=lambda kind: kind.name)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """One kind of UNet with random weights, exported once."""
    pytest.importorskip("onnxscript")
    from diffood.export.build import export_bundle
    from diffood.export.request import ExportRequest
    from diffood.export.sources.classifiers.preprocessing import Preprocessing
    from diffood.export.sources.classifiers.source import ClassifierSource
    from diffood.export.sources.model_sources import ModelSources

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
        ExportRequest(
            folder / "bundle",
            ModelSources(
                folder / "unet",
                ClassifierSource(f"{folder / 'tiny.py'}:tiny", preprocessing=Preprocessing(mean=mean, std=std)),
            ),
        ),
        print,
    )
    return Tiny(
        kind,
        open_bundle(folder / "bundle"),
        Models(
            unet=unet,
            alpha_bar=noise_levels(scheduler),
            prediction=kind.prediction,
            classify=tiny_classify(folder / "tiny.py", mean, std),
            labels=kind.labels or 0,
        ),
    )


def tiny_classify(file: Path, mean: tuple[float, ...], std: tuple[float, ...]) -> Classify:
    """The factory's module behind mean and std, its features taken by repeating its first half."""
    model = runpy.run_path(str(file))["tiny"]().eval()

    def classify(x: Tensor) -> tuple[Tensor, Tensor]:
        image = ((x + 1) / 2 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
        features = torch.tanh(model.hidden(image.flatten(1)))
        return model.head(features), features

    return classify


def test_every_kind_of_unet_agrees_with_the_second_writing(tiny: Tiny) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (4, tiny.kind.channels, SIDE, SIDE), dtype=np.uint8)
    ways = (((120, 240), 40), ((150,), 75))
    for schedule, sampler, (starts, stride) in itertools.product(SCHEDULES, SAMPLERS, ways):
        chosen = plan(schedule=schedule, sampler=sampler, guidance=0.0, start_times=starts, stride=stride)
        assert_same_scores(tiny.models, tiny.bundle, chosen, pixels)
        features = chosen.changed({"space": "features", "norm": "l2", "compare": "neighbour"})
        assert_same_scores(tiny.models, tiny.bundle, features, pixels)


def test_kinds_of_unet_are_what_the_manifest_says(tiny: Tiny) -> None:
    entry = tiny.bundle.manifest.unet
    labels = {None: "none", CLASSES: "class"}
    assert (entry.labels, entry.prediction) == (labels[tiny.kind.labels], tiny.kind.prediction)
    np.testing.assert_allclose(tiny.bundle.alpha_bar, tiny.models.alpha_bar.numpy(), rtol=1e-4)
