"""Reads a bundle's graphs: bytes that were all hashed, weights in a second file among them. Runs nothing."""

from dataclasses import dataclass
from pathlib import Path

from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import Bundle, GraphEntry, Precision, Role
from diffood.runtime.bundle.external_data import ExternalTensor, StrayTensorError, find_external_data
from diffood.runtime.bundle.operators import find_forbidden
from diffood.runtime.bundle.weights_file import Weight, find_problem, view_weights
from diffood.runtime.method.plan import Plan

_UNPROVEN = "keeps weights in other files, which are not hashed"


def step_role(*, guided: bool) -> Role:
    """The role of the step graph, with or without guidance."""
    return "step_guided" if guided else "step_plain"


def autoencoder_roles(bundle: Bundle) -> tuple[Role, ...]:
    """The roles of the graphs into latents and back; none if images are denoised as they are."""
    return ("encode", "decode") if bundle.manifest.latent else ()


def list_roles(bundle: Bundle, plan: Plan) -> tuple[Role, ...]:
    """The roles of the graphs that a plan takes, the classifier's first."""
    if not plan.denoises:
        return ("classify",)
    return ("classify", step_role(guided=plan.guidance > 0), *autoencoder_roles(bundle))


def name_of(bundle: Bundle, plan: Plan) -> str | None:
    """The name of a plan, the default one first; None for a plan that is not among the bundle's."""
    plans, default = bundle.manifest.plans, bundle.manifest.default_plan
    return next((name for name in (default, *plans) if plans[name] == plan), None)


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


def read_graph(bundle: Bundle, role: Role, precision: Precision, *, weights: bool = True) -> Graph:
    """Read a graph and its weights; without them, those in a second file stay there.

    Raises BundleError as read_model does, EngineMemoryError.
    """
    entry = bundle.graph(role, precision)
    model, tensors = read_model(bundle, entry)
    outside = view_weights(tensors, bundle.load(entry.data)) if weights and entry.data and tensors else {}
    return Graph(bundle.path / entry.file, model, outside)


def read_model(bundle: Bundle, entry: GraphEntry) -> tuple[bytes, list[ExternalTensor]]:
    """Bytes of a graph's ONNX file, and what it says of the weights in entry.data, which is not read.

    Raises BundleError if it is not ONNX, keeps a tensor in any other file, or has operators that no export writes.
    """
    where, model = bundle.path / entry.file, bundle.read(entry.file)
    try:
        tensors = find_external_data(model)
        forbidden = find_forbidden(model)
    except StrayTensorError as error:
        detail = f" It has {error}." if entry.data else ""
        raise BundleError(f"{where} {_UNPROVEN}; export the bundle again.{detail}") from None
    except ValueError as error:
        raise BundleError(f"{where} is not an ONNX graph ({error}); export the bundle again.") from None
    if forbidden:
        raise BundleError(f"{where} {forbidden}; export the bundle again.")
    if tensors and entry.data is None:
        raise BundleError(f"{where} {_UNPROVEN}; export the bundle again.")
    if entry.data and (problem := find_problem(tensors, entry.data, bundle.entry(entry.data).size)):
        raise BundleError(f"{where} {problem}; export the bundle again.")
    return model, tensors
