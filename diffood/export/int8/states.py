"""What a pass feeds a bundle's parts: inputs recorded while real images are denoised. INT8 is calibrated on them.

The parts run one after the other, as they are in the bundle; the detector's stages have the same parts inside, where
nothing could be recorded.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from diffood.export.int8.parts import Feeds, RunPart, load_part
from diffood.runtime.bundle.bundle import Bundle, Role
from diffood.runtime.images.pixels import from_pixels
from diffood.runtime.method.noise import make_pool
from diffood.runtime.method.plan import PLAIN, Plan
from diffood.runtime.method.schedule import NO_REGISTER, StepTable
from diffood.runtime.method.scoring import Array

FEWEST_TIMES = 3  # of a trajectory that is recorded


@dataclass(frozen=True)
class States:
    """Inputs that a graph was fed, N rows of them.

    Attributes:
        inputs: Values [N, ...] by name.
        groups: [N], the time of a step, or "images" and "denoised".
    """

    inputs: Feeds
    groups: npt.NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.groups)

    def take(self, rows: npt.NDArray[np.integer]) -> "States":
        """These rows, in this order."""
        return States({name: value[rows] for name, value in self.inputs.items()}, self.groups[rows])

    def first(self, count: int) -> "States":
        """The first `count` rows of every group."""
        kept = [np.flatnonzero(self.groups == group)[:count] for group in np.unique(self.groups)]
        return self.take(np.sort(np.concatenate(kept)))

    def split(self, rows: int) -> list["States"]:
        """Batches of at most `rows` rows."""
        return [self.take(np.arange(start, min(start + rows, len(self)))) for start in range(0, len(self), rows)]


@dataclass(frozen=True)
class _Noised:
    """What is denoised, with all repeats of all N images in a row: [R·N, ...].

    Attributes:
        clean: Images or latents float32 [R·N, c, h, w].
        noise: Likewise.
        label: The classifier's, int64 [R·N].
    """

    clean: Array
    noise: Array
    label: npt.NDArray[np.int64]


def record_states(bundle: Bundle, pixels: npt.NDArray[np.uint8]) -> dict[Role, States]:
    """Denoise images with the default plan and keep what the classifier and the steps are fed.

    From the plan's start times down in FEWEST_TIMES steps or more: another plan asks at other times, and what rounds
    well at one may not at another. With the labels the classifier gave. step_plain is fed by the same plan without
    guidance; classify by the images and by what they were denoised to.

    Args:
        bundle: With FP32 graphs.
        pixels: Images uint8 [N, C, H, W] of the bundle's shape.
    """
    plan, x = bundle.plan(), from_pixels(pixels)
    images = np.repeat(["images"], len(x))
    if not plan.denoises:
        return {"classify": States({"x": x}, images)}
    stride = min(plan.stride, max(1, max(plan.start_times) // FEWEST_TIMES))
    latents = encode_images(bundle, x)
    pool = make_pool(plan.seed, plan.repeats, math.prod(x.shape[1:]), math.prod(latents.shape[1:]))
    label = load_part(bundle, "classify")({"x": x})["logits"].argmax(axis=1)
    noised = _Noised(
        clean=np.tile(latents, (plan.repeats, 1, 1, 1)),
        noise=pool.draw(pixels, latents.shape[1:]).reshape(-1, *latents.shape[1:]),
        label=np.tile(label, plan.repeats),
    )
    states: dict[Role, States] = {}
    for entry in bundle.manifest.graphs:
        if entry.precision == "fp32" and entry.role in ("step_plain", "step_guided"):
            guidance = (plan.guidance or PLAIN.guidance) if entry.role == "step_guided" else 0.0
            asked = plan.changed({"guidance": guidance, "stride": stride})
            states[entry.role], ends = _denoise(bundle, entry.role, asked, noised)
    if bundle.manifest.latent:
        ends = load_part(bundle, "decode")({"z": ends})["x"]
    fed = np.concatenate([x, np.clip(ends, -1, 1)])
    states["classify"] = States({"x": fed}, np.concatenate([images, np.repeat(["denoised"], len(ends))]))
    return states


def encode_images(bundle: Bundle, x: Array) -> Array:
    """What is noised of images float32 [N, C, H, W] in [-1, 1]: they themselves, or their latents."""
    return load_part(bundle, "encode")({"x": x})["z"] if bundle.manifest.latent else x


def _denoise(bundle: Bundle, role: Role, plan: Plan, noised: _Noised) -> tuple[States, Array]:
    """What a step graph is fed from all start times, one after the other, and what comes out at their ends."""
    step = load_part(bundle, role)
    found = [_denoise_from(step, table, plan.guidance, noised) for table in bundle.tables(plan)]
    fed = [feeds for each, _ in found for feeds in each]
    inputs = {name: np.concatenate([feeds[name] for feeds in fed]) for name in fed[0]}
    groups = np.array([f"t = {time:g}" for time in inputs["time"]])
    return States(inputs, groups), np.concatenate([end for _, end in found])


def _denoise_from(step: RunPart, table: StepTable, guidance: float, noised: _Noised) -> tuple[list[Feeds], Array]:
    """What a step graph is fed from one start time, step by step, and what comes out at the end: see StepTable."""
    signal, sigma = map(np.float32, table.noise_scale)
    x, rows = signal * noised.clean + sigma * noised.noise, len(noised.clean)
    registers = np.zeros((table.weights.shape[1], *x.shape), np.float32)
    fed: list[Feeds] = []
    for number in range(len(table)):
        fed.append(
            {
                "x": x,
                "time": np.full(rows, table.times[number]),
                "label": noised.label,
                "coefficients": np.tile(table.coefficients[number], (rows, 1)),
                "guidance": np.full(rows, guidance, np.float32),
            }
        )
        found = step(fed[-1])
        x = found["x_next"] + np.tensordot(table.weights[number], registers, 1)
        if table.store[number] != NO_REGISTER:
            registers[table.store[number]] = found["epsilon"]
    return fed, x
