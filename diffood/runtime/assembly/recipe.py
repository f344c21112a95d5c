"""What all graphs of a plan are made from: the bundle's parts, and the numbers of the method. Writes no node."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from diffood.errors import BundleError, UsageError
from diffood.runtime.assembly.pooling import pooled_length
from diffood.runtime.assembly.tensors import require_tensors
from diffood.runtime.bundle.bundle import Bundle, Precision, Role
from diffood.runtime.bundle.graphs import list_roles, read_graph
from diffood.runtime.bundle.weights_file import Weight
from diffood.runtime.method.noise import NoisePool, make_pool
from diffood.runtime.method.plan import Plan
from diffood.runtime.method.schedule import StepTable
from diffood.runtime.method.witnesses.definition import FEATURES, INSIDE, SNAPSHOT
from diffood.runtime.method.witnesses.logits import LOGIT_NORM
from diffood.runtime.method.witnesses.margin import MARGIN
from diffood.runtime.method.witnesses.registry import classify_denoised, inner_vectors
from diffood.runtime.onnx.inner_maps import GROWING, SHRINKING, InnerMap, find_inner_maps
from diffood.runtime.onnx.parts import Part

Planes = tuple[int, int, int]


@dataclass(frozen=True)
class Stage:
    """Which repeats a stage does: first … last - 1. The first stage classifies the images, and may do no repeat."""

    number: int
    first: int
    last: int

    @property
    def classifies(self) -> bool:
        """Whether it classifies the images; later ones are given what it found."""
        return self.number == 0

    @property
    def repeats(self) -> int:
        """How many repeats it does."""
        return self.last - self.first


def list_stages(plan: Plan) -> list[Stage]:
    """The stages of a plan, in their order."""
    ends = (*plan.stages, plan.repeats)
    return [Stage(number, first, last) for number, (first, last) in enumerate(zip((0, *ends), ends, strict=False))]


@dataclass(frozen=True)
class Parts:
    """The graphs of a bundle that a plan needs.

    Attributes:
        classify: x -> logits, features.
        step: One denoising step; None where nothing is denoised.
        encode: Images to latents; None where images are denoised as they are.
        decode: Latents to images; likewise.
    """

    classify: Part
    step: Part | None = None
    encode: Part | None = None
    decode: Part | None = None

    @property
    def domains(self) -> dict[str, int]:
        """Versions of all their operators by domain."""
        parts = (self.classify, self.step, self.encode, self.decode)
        return {domain: version for part in parts if part for domain, version in part.domains.items()}


@dataclass(frozen=True)
class Recipe:
    """What all stages of a plan have in common.

    Attributes:
        parts: The bundle's graphs.
        plan: The plan.
        tables: Its step tables, by start time.
        origin_scale: (scale of x, scale of noise) of the image that denoised ones are compared with.
        pool: The noise; None where nothing is denoised.
        image: (C, H, W) of images.
        row: (c, h, w) of what is denoised: images, or latents.
        classes: Number K of logits.
        features: Length D of the features.
        outside: Weights that the bundle keeps outside its graphs, by their names in what is assembled.
        inner: The maps that vectors from inside the networks are made of, by name of the vector.
    """

    parts: Parts
    plan: Plan
    tables: list[StepTable]
    origin_scale: tuple[float, float]
    pool: NoisePool | None
    image: Planes
    row: Planes
    classes: int
    features: int
    outside: Mapping[str, Weight]
    inner: Mapping[str, tuple[InnerMap, ...]]

    def width(self, vector: str) -> int:
        """Length of a vector that witnesses compare."""
        return self.features if vector == FEATURES else pooled_length(self.inner[vector])

    @property
    def own_origin(self) -> bool:
        """Whether each repeat is compared with an original of its own, noised at index 0 (the reference schedule)."""
        return classify_denoised(self.plan.witnesses) and self.origin_scale[1] > 0


def make_recipe(bundle: Bundle, plan: Plan, precision: Precision, *, weights: bool = True) -> Recipe:
    """Read what a plan needs of a bundle, in this precision; `weights` as `read_graph` has it.

    Raises BundleError as `read_graph` does, UsageError for a plan that denoises where the bundle has no UNet.
    """
    manifest, tables = bundle.manifest, bundle.tables(plan)
    image, row = (manifest.image.channels, manifest.image.height, manifest.image.width), manifest.noised_shape
    parts: dict[str, Part] = {}
    outside: dict[str, Weight] = {}
    files: dict[tuple[str, int], str] = {}  # with operators of this domain and version
    for role in list_roles(bundle, plan):
        name = "step" if role.startswith("step") else role
        parts[name], found = _read_part(bundle, role, name, precision, weights=weights)
        outside |= found
        files |= dict.fromkeys(parts[name].domains.items(), bundle.graph(role, precision).file)
    _require_one_version(bundle, files)
    return Recipe(
        parts=Parts(**parts),
        plan=plan,
        tables=tables,
        origin_scale=plan.grid(bundle.alpha_bar).origin_scale() if plan.denoises else (1.0, 0.0),
        pool=make_pool(plan.seed, plan.repeats, math.prod(image), math.prod(row)) if plan.denoises else None,
        image=image,
        row=row,
        classes=len(manifest.class_names),
        features=manifest.feature_count,
        outside=outside,
        inner={vector: _find_maps(bundle, vector, parts) for vector in inner_vectors(plan.witnesses)},
    )


def _find_maps(bundle: Bundle, vector: str, parts: Mapping[str, Part]) -> tuple[InnerMap, ...]:
    """The maps of a vector from inside. Raises UsageError where the graph has none."""
    name, network, operators = {
        INSIDE: ("classify", "classifier", SHRINKING),
        SNAPSHOT: ("step", "UNet", GROWING),
    }[vector]
    maps = find_inner_maps(parts[name].graph, operators)
    if not maps:
        raise UsageError(
            f"The {network} of {bundle.path} has no feature maps whose sizes its graph tells, so the witness {vector} "
            f"cannot be measured: name others with --witnesses, such as {MARGIN.name} and {LOGIT_NORM.name}."
        )
    return maps


def _require_one_version(bundle: Bundle, files: Mapping[tuple[str, int], str]) -> None:
    """Refuse graphs that cannot be one: a graph has its operators of one version. files: By domain and version."""
    versions: dict[str, int] = {}
    for domain, version in files:
        other = versions.setdefault(domain, version)
        if other != version:
            one, two = (f"{files[domain, found]} of version {found}" for found in (other, version))
            raise BundleError(
                f"{bundle.path} has operators of {domain or 'ai.onnx'!r} in two versions, {one} and {two}: no graph "
                "can have both. Export the bundle again, all graphs with one --opset."
            )


def _read_part(
    bundle: Bundle, role: Role, name: str, precision: Precision, *, weights: bool
) -> tuple[Part, dict[str, Weight]]:
    graph = read_graph(bundle, role, precision, weights=weights)
    try:
        part = Part(name, graph.model)
    except ValueError as error:
        raise BundleError(f"{graph.where} cannot be used: {error}. Export the bundle again.") from None
    require_tensors(graph.where, bundle, role, part)
    return part, {part.name_of(weight): values for weight, values in graph.outside.items()}
