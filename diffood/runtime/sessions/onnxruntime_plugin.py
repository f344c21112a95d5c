"""The plug-in session: a plan's stages on any provider that ONNX Runtime loads from a library of its own.

Providers for the hardware of Intel, Qualcomm, NVIDIA and others come as such libraries. What a provider does not take
runs on ONNX Runtime's CPU provider; one that takes nothing is refused.
"""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from diffood.errors import DeviceError, DiffoodError, EngineMemoryError, MissingExtraError, UsageError
from diffood.runtime.assembly.recipe import Recipe, Stage, list_stages, make_recipe
from diffood.runtime.assembly.stage import BATCH, build_stage
from diffood.runtime.backends import Backend, PluginProvider, read_provider, without_library
from diffood.runtime.records import one_line
from diffood.runtime.sessions import Session, SessionRequest, StageTensors
from diffood.runtime.sessions.onnxruntime import LIBRARY, fixed_calls, give_weights
from diffood.runtime.sessions.out_of_memory import explain_lack_of_memory

OLDEST = "1.24"  # the first that says which nodes a provider took
_FATAL = 4
_TYPES = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8}


def has_plugins() -> bool:
    """Whether this ONNX Runtime can load providers of other makers, and say what they do."""
    return hasattr(onnxruntime.InferenceSession, "get_provider_graph_assignment_info")


def require_backend(backend: Backend, request: SessionRequest | None) -> str:
    """What this backend runs on. Raises UsageError, MissingExtraError and DeviceError, as `find_device` does."""
    device = find_device(backend)
    kind, vendor = device.device.type.name, device.device.vendor
    return f"onnxruntime {onnxruntime.__version__}, {device.ep_name} of {device.ep_vendor} on {vendor}'s {kind}"


def open_session(backend: Backend, request: SessionRequest) -> Session:
    """See sessions.backends.open_session."""
    return OnnxRuntimePluginSession(backend, request)


class OnnxRuntimePluginSession:
    """A plan's stages on a provider's first device, in calls of a fixed number of images, which the graphs are told."""

    engine_sha256, threads = None, 0

    def __init__(self, backend: Backend, request: SessionRequest) -> None:
        self.backend, self.precision, self.batch = without_library(backend), request.precision, request.batch
        device, self._provider = find_device(backend), _require_provider(backend)
        recipe = make_recipe(request.bundle, request.plan, request.precision)
        self._stages = []
        for stage in list_stages(request.plan):
            session = _load_stage(recipe, stage, self._provider, device, self.batch)
            self._stages.append(fixed_calls(session, self.batch, 1))
            # Some providers say that they take what they then cannot run: better found out now.
            zeros = {node.name: np.zeros(node.shape, _TYPES[node.type]) for node in session.get_inputs()}
            self.run(stage.number, zeros)

    def run(self, stage: int, feeds: StageTensors) -> StageTensors:
        """See Session.run."""
        try:
            return self._stages[stage].run(feeds)
        except DiffoodError:
            raise
        except Exception as error:  # of a provider
            raise DeviceError(
                f"{self._provider.name} failed in stage {stage + 1} ({one_line(error).rstrip('.')}): try another "
                "--provider-option, --precision or --backend."
            ) from None


def find_device(backend: Backend) -> Any:
    """The first device that the backend's provider offers, its library loaded before.

    Raises UsageError without a provider, MissingExtraError for an older ONNX Runtime, DeviceError where the library
    cannot be loaded or offers no device.
    """
    provider = _require_provider(backend)
    if not has_plugins():
        raise MissingExtraError(
            f"onnxruntime {onnxruntime.__version__} runs no plug-ins, {OLDEST} or newer does: "
            "pip install -U onnxruntime."
        )
    if provider.library is not None:
        _register(provider.name, provider.library)
    devices = onnxruntime.get_ep_devices()
    for device in devices:
        if device.ep_name == provider.name:
            return device
    offered = ", ".join(sorted({device.ep_name for device in devices}))
    why = (
        f"{provider.library} offers no device here by that name"
        if provider.library
        else "ONNX Runtime knows no such provider; give its library by --provider-library FILE"
    )
    raise DeviceError(f"--provider {provider.name} cannot run: {why}. There are: {offered}.")


def _require_provider(backend: Backend) -> PluginProvider:
    provider = read_provider(backend)
    if provider is None:
        raise UsageError(
            f"--backend {backend} needs --provider NAME, and --provider-library FILE unless it is built in."
        )
    return provider


@functools.cache  # a library is registered once per process
def _register(name: str, library: Path) -> None:
    if not library.is_file():
        raise DeviceError(f"--provider-library {library} is not a file: give the provider's shared library.")
    try:
        onnxruntime.register_execution_provider_library(name, str(library.absolute()))
    except Exception as error:  # of its C++ code, whose exceptions have no one class
        raise DeviceError(
            f"--provider-library {library} cannot be loaded by onnxruntime {onnxruntime.__version__} "
            f"({one_line(error).rstrip('.')}): give a plug-in provider's shared library for this version."
        ) from None


def _load_stage(recipe: Recipe, stage: Stage, provider: PluginProvider, device: Any, batch: int) -> Any:
    """An onnxruntime.InferenceSession of a stage on a device. Raises DeviceError, EngineMemoryError."""
    settings = onnxruntime.SessionOptions()
    give_weights(settings, recipe.outside)
    settings.log_severity_level = _FATAL  # errors come as exceptions
    settings.add_free_dimension_override_by_name(BATCH, batch)  # many accelerators take fixed shapes alone
    settings.add_session_config_entry("session.load_model_format", "ONNX")
    settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    try:
        with explain_lack_of_memory(LIBRARY):
            settings.add_provider_for_devices([device], dict(provider.options))
            session = onnxruntime.InferenceSession(build_stage(recipe, stage), settings)
    except EngineMemoryError:
        raise
    except Exception as error:
        raise DeviceError(
            f"{provider.name} cannot load stage {stage.number + 1} ({one_line(error).rstrip('.')}): try another "
            "--provider-option, --precision or --backend."
        ) from None
    session.disable_fallback()
    _require_work(session, provider, stage)
    return session


def _reason_of(error: Exception) -> str:
    return one_line(error).rstrip(".")


def _require_work(session: Any, provider: PluginProvider, stage: Stage) -> None:
    """Refuse a provider that takes no node: ONNX Runtime would run all on the CPU, and say nothing."""
    taken = [part for part in session.get_provider_graph_assignment_info() if part.ep_name == provider.name]
    if not any(part.get_nodes() for part in taken):
        raise DeviceError(
            f"{provider.name} takes no node of stage {stage.number + 1}, so that all would run on the CPU: try another "
            "--provider-option or --precision, or use --backend onnxruntime-cpu."
        )
