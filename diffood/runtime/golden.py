"""Golden values: what FP32 gives on ONNX Runtime's CPU for a few images. `export` stores them, `verify` compares."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from diffood.errors import BundleError
from diffood.runtime.assembly.stage import LOGITS
from diffood.runtime.backends import Backend
from diffood.runtime.bundle.arrays import load_arrays
from diffood.runtime.bundle.bundle import Bundle, Precision
from diffood.runtime.detector import Detector
from diffood.runtime.images.decode import ImageShape
from diffood.runtime.images.pixels import Pixels
from diffood.runtime.json_reader import parse_json
from diffood.runtime.method.plan import Plan
from diffood.runtime.method.scoring import Array
from diffood.runtime.method.witnesses.definition import FEATURES
from diffood.runtime.method.witnesses.registry import WITNESSES, inner_vectors
from diffood.runtime.records import explain_invalid

GOLDEN_IMAGES = 2
WAVES = 6  # of a field
MOST_PERIODS = 4.0  # of a wave, along a side of the image
IMAGE, PLAN = "image", "plan"
REFERENCE: tuple[Backend, Precision] = ("onnxruntime-cpu", "fp32")  # what golden values are of

GoldenOutputs = dict[str, Array]  # by name, as stages give them, [N, ...]


@dataclass(frozen=True)
class GoldenRun:
    """What a plan gives for the golden images.

    Attributes:
        plan: The plan, as it was at export.
        outputs: logits [N, K], features [N, D] and, by name, the distances [N, R, T] of witnesses of denoised images.
    """

    plan: Plan
    outputs: GoldenOutputs


@dataclass(frozen=True)
class Golden:
    """The golden values of a bundle.

    Attributes:
        image: uint8 [N, C, H, W].
        runs: By name of the plan.
    """

    image: Pixels
    runs: Mapping[str, GoldenRun]

    def outputs(self, plan: Plan) -> GoldenOutputs | None:
        """What a plan must give; None if that is not here."""
        names = list_outputs(plan)
        for run in self.runs.values():
            if _without_judging(run.plan) == _without_judging(plan) and set(names) <= run.outputs.keys():
                return {name: run.outputs[name] for name in names}
        return None


def _without_judging(plan: Plan) -> Plan:
    """A plan without what is made of its outputs, and when it stops."""
    return plan.model_copy(update={"witnesses": (), "combine": "sum", "stages": ()})


def list_outputs(plan: Plan) -> list[str]:
    """Names of a plan's outputs that are golden."""
    of_denoised = [name for name in plan.witnesses if WITNESSES[name].of_denoised]
    return [LOGITS, FEATURES, *inner_vectors(plan.witnesses), *of_denoised]


def nearest_plan(golden: Golden, bundle: Bundle, plan: Plan) -> Plan | None:
    """The golden plan of the fewest UNet evaluations that runs the same graphs as another plan; None without one."""
    alike = [
        run.plan
        for run in golden.runs.values()
        if run.plan.denoises == plan.denoises and (run.plan.guidance > 0) == (plan.guidance > 0)
    ]
    return min(alike, key=lambda found: found.evaluations(bundle.tables(found)), default=None)


def draw_images(shape: ImageShape) -> Pixels:
    """The golden images of a shape: smooth fields from black to white, sums of random waves.

    Models answer noise in a way of its own, which says little about images.
    """
    draw, count = np.random.default_rng(0), (GOLDEN_IMAGES, shape.channels, WAVES)
    down, along = (draw.uniform(-MOST_PERIODS, MOST_PERIODS, (*count, 1, 1)) for _ in range(2))
    phase = draw.uniform(0, 1, (*count, 1, 1))
    rows = np.linspace(0, 1, shape.height)[:, None]
    columns = np.linspace(0, 1, shape.width)
    field = np.cos(2 * math.pi * (down * rows + along * columns + phase)).sum(axis=2)
    low, high = (reduce(field, axis=(2, 3), keepdims=True) for reduce in (np.min, np.max))
    shade = (field - low) / np.maximum(high - low, 1e-12)
    return np.asarray(np.rint(255 * shade).astype(np.uint8))


def observe_images(detector: Detector, images: Pixels) -> GoldenOutputs:
    """What a detector's plan gives for images uint8 [N, C, H, W] after all repeats; NaN where models give none."""
    found = [evidence for _, evidence in detector.observe(enumerate(images))]
    each = [{LOGITS: one.logits, FEATURES: one.features, **one.inner, **one.distances} for one in found]
    outputs = {name: np.stack([one[name] for one in each]) for name in list_outputs(detector.plan)}
    unsound = [not one.sound for one in found]
    for value in outputs.values():
        value[unsound] = np.nan
    return outputs


def observe_reference(bundle: Bundle, plan: Plan, images: Pixels) -> GoldenOutputs:
    """What FP32 gives on ONNX Runtime's CPU."""
    backend, precision = REFERENCE
    with Detector.load(bundle, plan, backend=backend, precision=precision) as detector:
        return observe_images(detector, images)


def pack_golden(golden: Golden) -> dict[str, npt.NDArray[np.generic]]:
    """The arrays of the file, by name."""
    arrays: dict[str, npt.NDArray[np.generic]] = {IMAGE: golden.image}
    for name, run in golden.runs.items():
        arrays[f"{name}.{PLAN}"] = np.array(run.plan.model_dump_json())
        arrays |= {f"{name}.{output}": value for output, value in run.outputs.items()}
    return arrays


def read_golden(bundle: Bundle) -> Golden:
    """The golden values of a bundle. Raises BundleError where they are invalid."""
    file, shape = bundle.manifest.golden, bundle.manifest.image
    arrays = load_arrays(bundle.read(file), file)
    image = arrays.get(IMAGE, np.empty(0))
    planes = (shape.channels, shape.height, shape.width)
    if image.dtype != np.uint8 or image.ndim != 4 or image.shape[1:] != planes or not len(image):
        raise BundleError(
            f"{bundle.path / file} has no golden images uint8 of {'x'.join(map(str, planes))}; export the bundle again."
        )
    names = [key.removesuffix(f".{PLAN}") for key in arrays if key.endswith(f".{PLAN}")]
    with explain_invalid(f"{bundle.path / file}", "export the bundle again", BundleError):
        return Golden(image, {name: _read_run(arrays, name) for name in names})


def _read_run(arrays: Mapping[str, npt.NDArray[Any]], name: str) -> GoldenRun:
    plan = Plan.model_validate(parse_json(str(arrays[f"{name}.{PLAN}"]).encode()))
    found = {output: arrays.get(f"{name}.{output}", np.empty(0)) for output in list_outputs(plan)}
    for output, values in found.items():
        if values.dtype != np.float32 or values.shape[:1] != arrays[IMAGE].shape[:1]:
            raise ValueError(f"{f'{name}.{output}'!r} is not float32, a row for each image")
    return GoldenRun(plan, found)
