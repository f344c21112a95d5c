"""Which of a bundle's engines this machine may run for a request, and the command that builds one where none fits."""

import shlex
from dataclasses import dataclass

from diffood.errors import BundleError
from diffood.runtime.assembly.identity import identify_stage
from diffood.runtime.assembly.recipe import list_stages
from diffood.runtime.bundle.engines import DEFAULT_PROFILE, EngineFolder, EngineLibrary, EngineRecord, list_engines
from diffood.runtime.bundle.graphs import name_of
from diffood.runtime.sessions import SessionRequest


@dataclass(frozen=True)
class EngineHost:
    """A library installed here and the GPU it would use: its compute capability, e.g. "8.6", and name where known."""

    library: EngineLibrary
    library_version: str
    compute_capability: str
    gpu: str | None = None


def find_engine(request: SessionRequest, machine: EngineHost) -> EngineFolder:
    """The engine that this machine may run for a request. Raises BundleError naming each mismatch and the remedy."""
    kind, where = f"{machine.library} engine in {request.precision}", request.bundle.path
    engines = [
        engine
        for engine in list_engines(request.bundle)
        if (engine.record.library, engine.record.precision) == (machine.library, request.precision)
    ]
    remedy = f"`{rebuild_command(request, machine)}`"
    if name_of(request.bundle, request.plan) is None:
        remedy = f"`diffood calibrate` with this plan on another backend, unless that is done, then {remedy}"
    if not engines:
        raise BundleError(f"{where} has no {kind}: run {remedy}.")
    problems = {engine.path.name: _mismatch(request, engine.record, machine) for engine in engines}
    for engine in engines:
        if not problems[engine.path.name]:
            return engine
    reasons = "; ".join(f"{name} {problem}" for name, problem in problems.items())
    raise BundleError(f"No engine of {where} fits: {reasons}. Run {remedy}.")


def rebuild_command(request: SessionRequest, machine: EngineHost) -> str:
    """The command that builds the engine of a request for this machine; it takes all batches that the default takes."""
    batch = request.batch
    options = ["--engine", machine.library]
    if machine.library == "tensorrt-rtx":
        options += ["--gpu", f"sm{machine.compute_capability.replace('.', '')}"]
    options += ["--precision", request.precision]
    if name := name_of(request.bundle, request.plan):
        options += ["--engine-plan", name]
    if batch > DEFAULT_PROFILE.largest:
        options += ["--engine-batch", f"{DEFAULT_PROFILE.smallest},{batch},{batch}"]
    return shlex.join(["diffood", "export", "--bundle", str(request.bundle.path), *options])


def _mismatch(request: SessionRequest, record: EngineRecord, machine: EngineHost) -> str:
    """Why this engine must not run here; "" if it may."""
    if record.plan != request.plan:
        return f"runs another plan, {record.plan_name}"
    if elsewhere := _mismatch_with_machine(record, machine):
        return elsewhere
    if not record.profile.smallest <= request.batch <= record.profile.largest:
        return f"takes {record.profile.smallest} to {record.profile.largest} images, --batch is {request.batch}"
    for file, stage in zip(record.stages, list_stages(record.plan), strict=True):
        if file.built_from != identify_stage(request.bundle, request.plan, request.precision, stage):
            return "was built from other graphs than the bundle's, or by another version of diffood"
    return ""


def _mismatch_with_machine(record: EngineRecord, machine: EngineHost) -> str:
    if record.compute_capability != machine.compute_capability:
        return (
            f"was built for compute capability {record.compute_capability}, this GPU has {machine.compute_capability}"
        )
    if record.library_version != machine.library_version:
        return f"was built by {record.library} {record.library_version}, {machine.library_version} is installed"
    if record.gpu and machine.gpu and record.gpu != machine.gpu:
        return f"was built on {record.gpu}, this GPU is {machine.gpu}"
    return ""
