"""The process in which one engine is built: a job as arguments, the ONNX file on stdin, JSON lines on stdout.

A process of its own, since polygraphy fixes at import which of the two libraries it drives, and since a builder that
crashes or runs out of memory takes its process with it. build.py starts it; needs no torch.
"""

import importlib
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any, NoReturn

from pydantic import Field

from diffood.errors import DeviceError, DiffoodError, ExportError
from diffood.export.engines.errors import (
    build_failed,
    cannot_build_here,
    describe_node,
    graph_refused,
    library_too_old,
    missing_library,
)
from diffood.runtime.bundle.engines import EngineLibrary, Profile
from diffood.runtime.json_reader import parse_json
from diffood.runtime.progress import Say
from diffood.runtime.records import Record
from diffood.runtime.sessions.tensorrt import MODULES, load_library

OLDEST_TENSORRT = (10, 3)  # JetPack 6 has it; the first whose parser names every node it refuses


class BuilderPlatform(Record):
    """What a library can build for on this machine.

    Attributes:
        library_version: Of TensorRT or TensorRT-RTX.
        compute_capabilities: Of the GPUs it builds for, as "8.6".
        gpu: Name of this machine's; None for tensorrt-rtx, which needs none.
        driver: Its version; None for tensorrt-rtx.
    """

    library_version: str
    compute_capabilities: tuple[str, ...]
    gpu: str | None = None
    driver: str | None = None


class BuildJob(Record):
    """One engine to build.

    Attributes:
        library: What builds it.
        name: Of what is built, for messages.
        model: Where the graph lies, so that weights in another file are found next to it; None: it has none.
        plan: The file to write.
        compute_capability: Of the GPU, as "8.6".
        profile: Images of an engine call.
        workspace_mb: Memory the builder may use; None for all.
        timing_cache: File that makes the next build faster.
        progress_seconds: Between two reports.
    """

    library: EngineLibrary
    name: str
    model: Path | None = None
    plan: Path
    compute_capability: str
    profile: Profile
    workspace_mb: int | None = None
    timing_cache: Path | None = None
    progress_seconds: Annotated[float, Field(ge=0)] = 5.0


def ask(library: EngineLibrary) -> BuilderPlatform:
    """Find out what `library` can build for. Raises MissingExtraError, and ExportError where TensorRT finds no GPU."""
    if library == "tensorrt-rtx":
        module = _load(library)
        names = [name[2:] for name in module.ComputeCapability.__members__ if name.startswith("SM")]
        known = sorted((int(name[:-1]), int(name[-1])) for name in names)
        capabilities = tuple(f"{major}.{minor}" for major, minor in known)
        return BuilderPlatform(library_version=module.__version__, compute_capabilities=capabilities)
    try:
        found = load_library(library)
    except DeviceError as error:
        raise cannot_build_here(str(error)) from None
    version = found.machine.library_version
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_TENSORRT:
        raise library_too_old(version, OLDEST_TENSORRT)
    return BuilderPlatform(
        library_version=version,
        compute_capabilities=(found.machine.compute_capability,),
        gpu=found.device.name,
        driver=f"CUDA {found.device.driver}",
    )


def build(job: BuildJob, onnx: bytes, say: Say) -> dict[str, str]:
    """Build one engine and write its plan file; returns the options it was built with. Raises ExportError."""
    trt = _load(job.library)
    from polygraphy import __version__ as polygraphy_version
    from polygraphy.backend.trt import CreateConfig, EngineBytesFromNetwork, PostprocessConfig
    from polygraphy.exception import PolygraphyException

    flags = trt.NetworkDefinitionCreationFlag.__members__
    typed = "STRONGLY_TYPED" in flags  # once the flag is gone, every network is
    errors = _collect_errors()
    builder, network, parser = _open_parser(trt, typed)
    if not parser.parse(onnx, **_place(job)):
        _refuse(trt, job, onnx, typed)
    options: dict[str, Any] = {
        "profiles": [_profile(network, job.profile)],
        "progress_monitor": _monitor(trt, job, say),
    }
    if job.workspace_mb:
        options["memory_pool_limits"] = {trt.MemoryPoolType.WORKSPACE: job.workspace_mb * 2**20}
    if job.timing_cache:
        options["load_timing_cache"] = str(job.timing_cache)
    if job.library == "tensorrt-rtx":
        from polygraphy.backend.tensorrt_rtx import CreateConfigRTX

        major, minor = job.compute_capability.split(".")
        config = CreateConfigRTX(compute_capabilities=[(int(major), int(minor))], **options)
    else:
        config = CreateConfig(**options)

    def without_tf32(_builder: Any, _network: Any, settings: Any) -> None:
        settings.clear_flag(trt.BuilderFlag.TF32)  # the reference of the other precisions must be full FP32

    save = {"save_timing_cache": options.get("load_timing_cache")}
    try:
        plan = EngineBytesFromNetwork((builder, network, parser), PostprocessConfig(config, without_tf32), **save)()
    except PolygraphyException as error:
        # polygraphy also logs what it raises; the builder's own errors come before
        logged = [line for line in errors if line != str(error)] or [str(error)]
        raise build_failed(f"{job.library} {trt.__version__}", job.name, job.workspace_mb, logged) from None
    job.plan.write_bytes(memoryview(plan))
    return {
        "strongly_typed": "yes",
        "tf32": "no",
        "workspace_mb": str(job.workspace_mb or "all"),
        "timing_cache": "yes" if job.timing_cache else "no",
        "polygraphy": polygraphy_version,
    }


def _load(library: EngineLibrary) -> Any:
    """Import the library, and polygraphy for it."""
    os.environ["POLYGRAPHY_USE_TENSORRT_RTX"] = str(int(library == "tensorrt-rtx"))
    try:
        module = importlib.import_module(MODULES[library])
        importlib.import_module("polygraphy")
    except (ImportError, OSError) as error:
        raise missing_library(library, error) from None
    return module


def _profile(network: Any, images: Profile) -> Any:
    """Polygraphy's profile: every input's first dimension is the batch, the others are fixed."""
    from polygraphy.backend.trt import Profile as Shapes

    shapes = Shapes()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        rest = tuple(tensor.shape)[1:]
        shapes.add(tensor.name, *((count, *rest) for count in (images.smallest, images.usual, images.largest)))
    return shapes


def _monitor(trt: Any, job: BuildJob, say: Say) -> Any:
    """Reports the phase the builder is in, at most every progress_seconds; the builder has hundreds of steps."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.steps: dict[str, int] = {}
            self.last = time.monotonic()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.steps[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            if time.monotonic() - self.last >= job.progress_seconds:
                self.last = time.monotonic()
                say(f"{job.name}: {phase_name}, step {step + 1} of {self.steps.get(phase_name, step + 1)}")
            return True  # go on

        def phase_finish(self, phase_name: str) -> None:
            self.steps.pop(phase_name, None)

    return Monitor()


def _collect_errors() -> list[str]:
    """A list that collects the errors polygraphy and TensorRT log, instead of the terminal."""
    from polygraphy.logger import G_LOGGER

    found: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    G_LOGGER.module_severity = G_LOGGER.ERROR
    G_LOGGER.letter = False
    G_LOGGER.use_python_logging_system = True
    G_LOGGER.python_logger.addHandler(Collect())
    G_LOGGER.python_logger.propagate = False
    return found


def _open_parser(trt: Any, typed: bool) -> tuple[Any, Any, Any]:
    """Polygraphy's loaders of ONNX files read whole graphs from paths, or bytes without weights in other files."""
    from polygraphy.backend.trt import CreateNetwork, get_trt_logger

    builder, network = CreateNetwork(strongly_typed=typed)()
    trt.init_libnvinfer_plugins(get_trt_logger(), "")
    return builder, network, trt.OnnxParser(network, get_trt_logger())


def _place(job: BuildJob) -> dict[str, str]:
    return {"path": str(job.model)} if job.model else {}


def _refuse(trt: Any, job: BuildJob, onnx: bytes, typed: bool) -> NoReturn:
    """Parse once more, for the whole list of nodes the parser refuses."""
    _builder, _network, parser = _open_parser(trt, typed)
    parser.supports_model_v2(onnx, **_place(job))  # goes on after the first refused node, as `parse` does not
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    nodes = [describe_node(e.node_name(), e.node_operator(), e.desc()) for e in errors if e.node_operator()]
    raise graph_refused(f"{job.library} {trt.__version__}", job.name, nodes)


def main(verb: str, argument: str) -> None:
    """Run `ask LIBRARY` or `build JOB`. Lines on stdout: {"progress": text}, at last {"result": …} or {"error": …}."""
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is not part of the answer

    def send(kind: str, value: Any) -> None:
        channel.write(json.dumps({kind: value}) + "\n")

    try:
        if verb == "ask":
            library: EngineLibrary = "tensorrt-rtx" if argument == "tensorrt-rtx" else "tensorrt"
            send("result", ask(library).model_dump())
        else:
            job = BuildJob.model_validate(parse_json(argument.encode()))
            send("result", build(job, sys.stdin.buffer.read(), lambda line: send("progress", line)))
    except DiffoodError as error:
        send("error", [type(error).__name__, str(error)])
    except MemoryError:
        send(
            "error",
            [ExportError.__name__, "memory ran out: lower --workspace or the largest batch of --engine-batch."],
        )
    except OSError as error:
        send("error", [ExportError.__name__, f"the engine cannot be written ({error}); free some space."])
    channel.close()
