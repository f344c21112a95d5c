"""The method as second_writing.py has it agrees with the runtime, in every schedule, sampler and kind of UNet."""

import itertools
import runpy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import exported
import numpy as np
import numpy.typing as npt
import pytest
from second_writing import Classify, Models, Tensor, by_hand, diffusers, load_small_models, noise_levels, torch
from unet_kinds import CLASSES, KINDS, MOST_AT_ONCE, SIDE, Kind, export_kind, save_kind

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


@dataclass(frozen=True)
class Tiny:
    """An exported kind: its bundle, and the models it was made of."""

    kind: Kind
    bundle: Bundle
    models: Models


# Each export takes eight seconds: the kind that has most of what the others have was exported before.
TIERS = [pytest.param(kind, marks=() if kind is MOST_AT_ONCE else pytest.mark.slow) for kind in KINDS]


@pytest.fixture(scope="module", params=TIERS, ids=lambda kind: kind.name)
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """One kind of UNet with random weights, exported once."""
    kind, folder = request.param, tmp_path_factory.mktemp(request.param.name)
    if kind is MOST_AT_ONCE:
        models, bundle = exported.models_of(kind.name), exported.copy_exported(kind.name, folder / "bundle")
    else:
        pytest.importorskip("onnxscript")
        models = folder
        save_kind(kind, models)
        export_kind(kind, models, folder / "bundle")
        bundle = open_bundle(folder / "bundle")
    return Tiny(
        kind,
        bundle,
        Models(
            unet=diffusers.UNet2DModel.from_pretrained(models / "unet").eval(),
            alpha_bar=noise_levels(diffusers.DDPMScheduler.from_pretrained(models / "scheduler")),
            prediction=kind.prediction,
            classify=tiny_classify(models / "tiny.py", *kind.prepared),
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
