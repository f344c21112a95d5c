"""What every session needs of a bundle's graphs: hashed bytes, and the expected inputs and outputs. Runs nothing."""

from dataclasses import dataclass
from pathlib import Path

from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import Bundle, GraphEntry, Precision, Role
from diffood.runtime.bundle.external_data import ExternalTensor, StrayTensorError, find_external_data
from diffood.runtime.sessions.weights_file import Weight, find_problem, view_weights

Tensor = tuple[str | int | None, ...]  # ONNX's word for the type, then dimensions; a name or None for a free one
Tensors = dict[str, Tensor]

FLOAT, INT64 = "tensor(float)", "tensor(int64)"
_BATCH = "batch"
_UNPROVEN = "keeps weights in other files, which are not hashed"


def step_role(*, guided: bool) -> Role:
    """The role of the step graph, with or without guidance."""
    return "step_guided" if guided else "step_plain"


def autoencoder_roles(bundle: Bundle) -> tuple[Role, ...]:
    """The roles of the graphs into latents and back; none if images are denoised as they are."""
    return ("encode", "decode") if bundle.manifest.latent else ()


@dataclass(frozen=True)
class Graph:
    """A graph whose bytes were all hashed.

    Attributes:
        where: Its ONNX file, for messages.
        model: The bytes of that file.
        outside: Weights that are in a second file, by name.
    """

    where: Path
    model: bytes
    outside: dict[str, Weight]


def read_graph(bundle: Bundle, role: Role, precision: Precision) -> Graph:
    """Read a graph and its weights. Raises BundleError as read_model does, EngineMemoryError."""
    entry = bundle.graph(role, precision)
    model, tensors = read_model(bundle, entry)
    outside = view_weights(tensors, bundle.load(entry.data)) if entry.data and tensors else {}
    return Graph(bundle.path / entry.file, model, outside)


def read_model(bundle: Bundle, entry: GraphEntry) -> tuple[bytes, list[ExternalTensor]]:
    """Bytes of a graph's ONNX file, and what it says of the weights in entry.data, which is not read.

    Raises BundleError if it is not ONNX, or keeps a tensor in any other file.
    """
    where, model = bundle.path / entry.file, bundle.read(entry.file)
    try:
        tensors = find_external_data(model)
    except StrayTensorError as error:
        detail = f" It has {error}." if entry.data else ""
        raise BundleError(f"{where} {_UNPROVEN}; export the bundle again.{detail}") from None
    except ValueError as error:
        raise BundleError(f"{where} is not an ONNX graph ({error}); export the bundle again.") from None
    if tensors and entry.data is None:
        raise BundleError(f"{where} {_UNPROVEN}; export the bundle again.")
    if entry.data and (problem := find_problem(tensors, entry.data, bundle.entry(entry.data).size)):
        raise BundleError(f"{where} {problem}; export the bundle again.")
    return model, tensors


def expected_tensors(bundle: Bundle, role: Role) -> tuple[Tensors, Tensors]:
    """Inputs and outputs by name that the loop relies on; the same in every precision."""
    manifest = bundle.manifest
    image = (FLOAT, _BATCH, manifest.image.channels, manifest.image.height, manifest.image.width)
    if role == "classify":
        classes, features = len(manifest.class_names), manifest.feature_count
        return {"x": image}, {"logits": (FLOAT, _BATCH, classes), "features": (FLOAT, _BATCH, features)}
    lane = (FLOAT, _BATCH, *manifest.lane_shape)
    if role == "encode":
        return {"x": image}, {"z": lane}
    if role == "decode":
        return {"z": lane}, {"x": image}
    inputs: Tensors = {"x": lane, "time": (FLOAT, _BATCH), "coefficients": (FLOAT, _BATCH, 4)}
    if manifest.unet.labels != "none":
        inputs["label"] = (INT64, _BATCH)
    if role == "step_guided":
        inputs["guidance"] = (FLOAT, _BATCH)
    return inputs, {"x_next": lane, "epsilon": lane}


def require_tensors(
    where: Path,
    bundle: Bundle,
    role: Role,
    inputs: Tensors,
    outputs: Tensors,
    remedy: str = "Export the bundle again",
) -> None:
    """Compare inputs and outputs of a loaded graph or engine with the expected ones. Raises BundleError naming both."""
    wanted_inputs, wanted_outputs = expected_tensors(bundle, role)
    a_role = f"an {role}" if role == "encode" else f"a {role}"
    for kind, wanted, found in ("inputs", wanted_inputs, inputs), ("outputs", wanted_outputs, outputs):
        if found.keys() != wanted.keys() or not all(_fits(found[name], wanted[name]) for name in wanted):
            raise BundleError(
                f"{where} is not {a_role} graph: its {kind} are {_words(found)}, expected are {_words(wanted)}. "
                f"{remedy}."
            )


def _fits(found: Tensor, wanted: Tensor) -> bool:
    """Same type and rank, a free batch, and no dimension fixed to another size."""
    return (
        len(found) == len(wanted)
        and found[0] == wanted[0]
        and not isinstance(found[1], int)
        and all(size == right or not isinstance(size, int) for size, right in zip(found[2:], wanted[2:], strict=True))
    )


def _words(tensors: Tensors) -> str:
    return ", ".join(f"{name} {kind}{list(shape)}" for name, (kind, *shape) in sorted(tensors.items()))
