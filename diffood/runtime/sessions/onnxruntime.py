"""The CPU session: a plan's stages on ONNX Runtime, in calls of a fixed number of images, divided among threads."""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnxruntime

from diffood.errors import BundleError, DeviceError, EngineMemoryError, MissingExtraError
from diffood.runtime.assembly.recipe import Recipe, Stage, list_stages, make_recipe
from diffood.runtime.assembly.stage import BATCH, build_stage
from diffood.runtime.backends import Backend
from diffood.runtime.budget import limited_memory, load_within, memory_budget
from diffood.runtime.bundle.external_data import find_external_data
from diffood.runtime.bundle.graphs import list_roles
from diffood.runtime.bundle.weights_file import Weight
from diffood.runtime.records import one_line
from diffood.runtime.sessions import Session, SessionRequest, StageTensors
from diffood.runtime.sessions.cores import usable_cores
from diffood.runtime.sessions.fixed_calls import FixedCalls
from diffood.runtime.sessions.out_of_memory import explain_failed_call, explain_lack_of_memory

LIBRARY, PROVIDER = "ONNX Runtime", "CPUExecutionProvider"
NONE: Mapping[str, Weight] = {}
ROWS = 4
"""UNet evaluations of a call. More fill the caches: a row costs some percent more; fewer leave products too small."""


@dataclass(frozen=True)
class ProviderSettings:
    """How ONNX Runtime runs a graph.

    Attributes:
        provider: ONNX Runtime's name of what runs it.
        options: Of the provider.
        threads: Of one call on a CPU; 0: all cores.
        rows: Of every call, where all have as many: what only depends on shapes is computed once; 0: any number.
    """

    provider: str = PROVIDER
    options: Mapping[str, str] = field(default_factory=dict)
    threads: int = 0
    rows: int = 0


def require_backend(backend: Backend, request: SessionRequest | None) -> str:
    """What this backend runs on. Raises MissingExtraError if the package is incomplete."""
    try:
        return f"onnxruntime {onnxruntime.__version__}"
    except AttributeError as error:  # what uninstalling one of its two packages leaves behind
        raise MissingExtraError(
            f"onnxruntime cannot be imported ({error}): pip install --force-reinstall onnxruntime."
        ) from None


def open_session(backend: Backend, request: SessionRequest) -> Session:
    """See sessions.backends.open_session."""
    return OnnxRuntimeSession(request)


class OnnxRuntimeSession:
    """A plan's stages on ONNX Runtime's CPU provider.

    Each thread makes calls of its own. Half of a step is small operations that ONNX Runtime does not divide among
    threads: two threads on one call are 1.4 times as fast as one, with a call each nearly twice (docs/parity.md). With
    more threads than the batch has images, all threads work on one call.
    """

    backend: Backend = "onnxruntime-cpu"
    engine_sha256 = None

    def __init__(self, request: SessionRequest) -> None:
        self.precision, self.batch = request.precision, request.batch
        self.threads = request.threads or usable_cores()
        recipe = make_recipe(request.bundle, request.plan, request.precision)
        own_calls = self.batch >= self.threads
        settings = ProviderSettings(threads=1 if own_calls else self.threads)
        rows = max(ROWS, 2 * len(recipe.tables) * request.plan.repeats)  # of a call, at most
        self._budget = memory_budget(_count_bytes(request), self.threads, rows * 4 * math.prod(recipe.image))
        self._called: set[int] = set()
        self._stages = [
            fixed_calls(
                load_stage(request.bundle.path, recipe, stage, settings),
                min(self.batch, images_per_call(recipe, stage)),  # a batch of one is for one image at a time
                self.threads if own_calls else 1,
            )
            for stage in list_stages(request.plan)
        ]

    def run(self, stage: int, feeds: StageTensors) -> StageTensors:
        """See Session.run."""
        if stage in self._called:
            return self._stages[stage].run(feeds)
        with limited_memory(self._budget):  # all calls take as much as the first
            found = self._stages[stage].run(feeds)
        self._called.add(stage)
        return found


def _count_bytes(request: SessionRequest) -> int:
    """Bytes of the graphs of a plan, with their weights."""
    bundle = request.bundle
    entries = [bundle.graph(role, request.precision) for role in list_roles(bundle, request.plan)]
    return sum(bundle.entry(name).size for entry in entries for name in (entry.file, entry.data) if name)


def images_per_call(recipe: Recipe, stage: Stage) -> int:
    """Images of every call of a stage, so that it makes about ROWS evaluations at once."""
    evaluations = len(recipe.tables) * (2 if recipe.plan.guidance > 0 else 1) * max(1, stage.repeats)
    return max(1, math.ceil(ROWS / max(1, evaluations)))


def fixed_calls(session: Any, rows: int, threads: int) -> FixedCalls:
    """Calls of a loaded graph with so many rows each. They raise EngineMemoryError, and BundleError if they fail."""
    shapes = {node.name: (rows, *node.shape[1:]) for node in session.get_outputs()}

    def call(feeds: StageTensors) -> StageTensors:
        with explain_failed_call(LIBRARY):
            found = dict(zip(shapes, session.run(list(shapes), dict(feeds)), strict=True))
        for name, value in found.items():
            _require_shape(name, value.shape, shapes[name])
        return found

    return FixedCalls(call, {node.name for node in session.get_inputs()}, rows, threads)


def _require_shape(name: str, found: tuple[int, ...], declared: tuple[int | str | None, ...]) -> None:
    """Raise BundleError for an output of another shape than its graph declares: ONNX Runtime gives it all the same."""
    fits = (size == wanted or not isinstance(wanted, int) for size, wanted in zip(found, declared, strict=False))
    if len(found) != len(declared) or not all(fits):
        raise BundleError(
            f"A graph of the bundle gives {name!r} of the shape {list(found)} and declares {list(declared)}; export "
            "the bundle again."
        )


def load_stage(
    where: Path,
    recipe: Recipe,
    stage: Stage,
    settings: ProviderSettings,
    rewrite: Callable[[bytes], bytes] | None = None,
) -> Any:
    """An onnxruntime.InferenceSession of a stage.

    Args:
        where: The bundle's folder, for messages.
        recipe: What the stage is built of.
        stage: The stage.
        settings: How it is run.
        rewrite: Makes a model that computes the same.

    Raises:
        BundleError: ONNX Runtime refuses the graph.
        EngineMemoryError: Memory is short.
        DeviceError: ONNX Runtime silently chose another provider.

    """
    provider = settings.provider
    try:
        with explain_lack_of_memory(LIBRARY):
            model = build_stage(recipe, stage)
            model = rewrite(model) if rewrite else model
            held = [tensor.name for tensor in find_external_data(model)]  # a stage may need no UNet, or no classifier
            outside = {name: recipe.outside[name] for name in held}
            start = functools.partial(start_session, model, settings, outside)
            size = len(model) + sum(weight.nbytes for weight in outside.values())
            # A GPU's driver maps more than it uses, and builds for minutes.
            session = load_within(start, size, str(where)) if provider == PROVIDER else start()
    except (BundleError, EngineMemoryError):
        raise
    except Exception as error:
        reason = one_line(error)
        raise BundleError(
            f"ONNX Runtime {onnxruntime.__version__} cannot load the graphs of {where}: {reason}. "
            "Export the bundle again, or install a newer onnxruntime."
        ) from None
    if session.get_providers()[0] != provider:
        raise DeviceError(
            f"ONNX Runtime {onnxruntime.__version__} fell back to {session.get_providers()[0]}, {provider} cannot be "
            "used here: `diffood doctor` says why. Choose another --backend, or auto."
        )
    return session


def start_session(model: bytes, settings: ProviderSettings, outside: Mapping[str, Weight] = NONE) -> Any:
    """An onnxruntime.InferenceSession; ONNX Runtime may have chosen another provider."""
    options = onnxruntime.SessionOptions()
    if settings.rows:
        options.add_free_dimension_override_by_name(BATCH, settings.rows)
    give_weights(options, outside)
    options.intra_op_num_threads = settings.threads
    options.log_severity_level = 4  # errors come as exceptions; `diffood doctor` warns about the machine
    options.add_session_config_entry("session.load_model_format", "ONNX")  # otherwise the bytes choose the parser
    # Spinning idle threads of a pool take the cores from the decoders and from the other graph's pool.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = [(settings.provider, dict(settings.options))]
    session = onnxruntime.InferenceSession(model, options, providers=providers, enable_fallback=0)
    session.disable_fallback()  # while it runs; enable_fallback=0 covers its creation, but not CUDA to CPU
    return session


def give_weights(settings: Any, outside: Mapping[str, Weight]) -> None:
    """Give a session these weights by name from memory, where the model says that they are in a file.

    ONNX Runtime compares types and shapes, and copies them while it makes the session.
    """
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(weight) for weight in outside.values()]
    settings.add_external_initializers(list(outside), values)
