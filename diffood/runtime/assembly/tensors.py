"""What is expected of a bundle's graphs: names, types and shapes of inputs and outputs. Runs nothing."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import Bundle, Role
from diffood.runtime.onnx.parts import Part
from diffood.runtime.records import one_line

Tensor = tuple[str | int | None, ...]  # ONNX's word for the type, then dimensions; a name or None for a free one
Tensors = dict[str, Tensor]

FLOAT, INT64 = "tensor(float)", "tensor(int64)"
# onnx.proto's numbers of types, from 1
_TYPES = "float uint8 int8 uint16 int16 int32 int64 string bool float16 double".split()  # noqa: SIM905
_BATCH = "batch"
_LONGEST = 1000  # characters of what a message says of a graph


def expected_tensors(bundle: Bundle, role: Role) -> tuple[Tensors, Tensors]:
    """Inputs and outputs by name that the loop relies on; the same in every precision."""
    manifest = bundle.manifest
    image = (FLOAT, _BATCH, manifest.image.channels, manifest.image.height, manifest.image.width)
    if role == "classify":
        classes, features = len(manifest.class_names), manifest.feature_count
        return {"x": image}, {"logits": (FLOAT, _BATCH, classes), "features": (FLOAT, _BATCH, features)}
    noised = (FLOAT, _BATCH, *manifest.noised_shape)
    if role == "encode":
        return {"x": image}, {"z": noised}
    if role == "decode":
        return {"z": noised}, {"x": image}
    inputs: Tensors = {"x": noised, "time": (FLOAT, _BATCH), "coefficients": (FLOAT, _BATCH, 4)}
    if bundle.require_unet(f"{role} is a graph of one").labels != "none":
        inputs["label"] = (INT64, _BATCH)
    if role == "step_guided":
        inputs["guidance"] = (FLOAT, _BATCH)
    return inputs, {"x_next": noised, "epsilon": noised}


def require_tensors(where: Path, bundle: Bundle, role: Role, part: Part) -> None:
    """Compare inputs and outputs of a graph with the expected ones. Raises BundleError naming both."""
    graph = part.graph
    inputs = _tensors(value for value in graph.input if value.name in part.inputs)
    outputs = _tensors(graph.output)
    wanted_inputs, wanted_outputs = expected_tensors(bundle, role)
    a_role = f"an {role}" if role == "encode" else f"a {role}"
    for kind, wanted, found in ("inputs", wanted_inputs, inputs), ("outputs", wanted_outputs, outputs):
        if found.keys() != wanted.keys() or not all(_fits(found[name], wanted[name]) for name in wanted):
            raise BundleError(
                f"{where} is not {a_role} graph: its {kind} are {_words(found)}, expected are {_words(wanted)}. "
                "Export the bundle again."
            )


def _tensors(values: Iterable[Any]) -> Tensors:
    return {value.name: (_type(value), *_shape(value)) for value in values}


def _type(value: Any) -> str:
    number = _of(value).elem_type
    return f"tensor({_TYPES[number - 1]})" if 1 <= number <= len(_TYPES) else "another type"


def _shape(value: Any) -> list[str | int | None]:
    sizes = _of(value).shape.dim
    return [size.dim_value if size.HasField("dim_value") else size.dim_param or None for size in sizes]


def _of(value: Any) -> Any:
    return value.type.tensor_type


def _fits(found: Tensor, wanted: Tensor) -> bool:
    """Same type and rank, a free batch, and no dimension fixed to another size."""
    return (
        len(found) == len(wanted)
        and found[0] == wanted[0]
        and not isinstance(found[1], int)
        and all(size == right or not isinstance(size, int) for size, right in zip(found[2:], wanted[2:], strict=True))
    )


def _words(tensors: Tensors) -> str:
    words = ", ".join(f"{name} {kind}{list(shape)}" for name, (kind, *shape) in sorted(tensors.items()))
    return one_line(words)[:_LONGEST]
