"""Builds the TensorRT engines of a bundle and records what each is bound to. The builders run in worker.py."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from diffood import errors
from diffood.errors import UsageError
from diffood.export.engines.errors import builder_died
from diffood.export.engines.worker import BuilderPlatform, BuildJob
from diffood.export.request import EngineBuildRequest
from diffood.runtime.assembly.identity import identify_stage
from diffood.runtime.assembly.recipe import Stage, list_stages, make_recipe
from diffood.runtime.assembly.stage import build_stage
from diffood.runtime.bundle.bundle import Bundle, Precision, open_bundle
from diffood.runtime.bundle.calibration import find_calibration
from diffood.runtime.bundle.engines import (
    EngineLibrary,
    EngineRecord,
    StageFile,
    engines_folder,
    save_record,
    target_name,
)
from diffood.runtime.bundle.graphs import list_roles, name_of
from diffood.runtime.bundle.trust import Trust
from diffood.runtime.bundle.writing import describe_file
from diffood.runtime.child import child_command
from diffood.runtime.json_reader import parse_object
from diffood.runtime.method.plan import Plan
from diffood.runtime.progress import Say

WORKER = "diffood.export.engines.worker"


@dataclass(frozen=True)
class _Builder:
    """What all engines of one call have in common."""

    bundle: Bundle
    request: EngineBuildRequest
    platform: BuilderPlatform
    root: Path
    report: Say


def build_engines(
    bundle_path: Path, request: EngineBuildRequest, report: Say, trust: Trust | None = None
) -> list[Path]:
    """Build engines of every stage of a bundle's plans in the precisions asked for. Needs no torch.

    A folder appears whole or not at all, and replaces the one before; those finished before an error stay.

    Args:
        bundle_path: The bundle's folder.
        request: Which engines.
        report: Gets a line for each stage, and one every few seconds of a long build.
        trust: What is asked of the bundle; None: what the environment asks.

    Returns:
        The engines' folders, engines/<target>-<plan>/.

    Raises:
        UsageError: Options do not fit together, or the bundle has no such plan.
        BundleError: The bundle is damaged, or has no graphs of a precision.
        MissingExtraError: The library is not installed.
        ExportError: A node is not supported, memory ran out, or the builder crashed.

    """
    bundle = open_bundle(bundle_path, trust)
    precisions = request.precisions or bundle.precisions
    for precision in precisions:
        bundle.graph("classify", precision)  # says what to do where the bundle has none
    _check(request)
    plans = choose_plans(bundle, request.plans)
    root = engines_folder(bundle)
    platform = ask_platform(request.library)
    capabilities = choose_capabilities(request, platform)
    where = f"for {platform.gpu}, {platform.driver}" if platform.gpu else "without a GPU"
    report(f"engines     {request.library} {platform.library_version}, {where}")
    root.mkdir(exist_ok=True)
    builder = _Builder(bundle, request, platform, root, report)
    ordered = [precision for precision in bundle.precisions if precision in precisions]
    return [
        _build_target(builder, capability, precision, name, plan)
        for capability in capabilities
        for precision in ordered
        for name, plan in plans.items()
    ]


def require_builder(request: EngineBuildRequest) -> None:
    """Check, before any graph is made, that engines can be built as asked. Raises as `build_engines` does."""
    _check(request)
    choose_capabilities(request, ask_platform(request.library))


def _check(request: EngineBuildRequest) -> None:
    rows = (request.profile.smallest, request.profile.usual, request.profile.largest)
    if list(rows) != sorted(rows):
        raise UsageError(f"--engine-batch {','.join(map(str, rows))} must ascend: fewest, usual, most images.")
    if request.workspace_mb is not None and request.workspace_mb < 1:
        raise UsageError(f"--workspace {request.workspace_mb} is too small; give 1 MB or more.")
    if request.library == "tensorrt" and request.gpus:
        raise UsageError(
            f"--gpu {','.join(request.gpus)} is for --engine tensorrt-rtx: tensorrt builds for this machine's own GPU. "
            "Leave --gpu out."
        )
    cache = request.timing_cache
    if request.library == "tensorrt-rtx" and cache:
        raise UsageError("tensorrt-rtx does not use a timing cache: leave --timing-cache out.")
    if cache and not cache.parent.is_dir():
        raise UsageError(f"--timing-cache {cache} cannot be written: there is no folder {cache.parent}.")


def choose_capabilities(request: EngineBuildRequest, platform: BuilderPlatform) -> tuple[str, ...]:
    """Compute capabilities to build for, as "8.6": of the GPUs asked for, each once and in order; tensorrt has its own.

    A GPU may be written sm86, sm_86, 8.6 or 86. Raises UsageError for one the library does not know.
    """
    if request.library == "tensorrt":
        return platform.compute_capabilities
    known = {f"sm{capability.replace('.', '')}": capability for capability in platform.compute_capabilities}
    names = [f"sm{gpu.strip().lower().removeprefix('sm').lstrip('_').replace('.', '')}" for gpu in request.gpus]
    unknown = [gpu for gpu, name in zip(request.gpus, names, strict=True) if name not in known]
    if unknown or not names:
        wrong = f"--gpu {unknown[0].strip()!r} is unknown" if unknown else "--gpu is needed"
        raise UsageError(f"{wrong}: {request.library} {platform.library_version} builds for {', '.join(known)}.")
    return tuple(known[name] for name in dict.fromkeys(names))


def choose_plans(bundle: Bundle, names: tuple[str, ...]) -> dict[str, Plan]:
    """Plans by name: those asked for, or the bundle's default and its calibration's, which need not have a name.

    Raises UsageError for a name the bundle does not have, BundleError for a damaged calibration.
    """
    if names:
        return {name: bundle.plan(name) for name in names}
    plans = {bundle.manifest.default_plan: bundle.plan()}
    if calibration := find_calibration(bundle):
        calibrated = calibration.fingerprint.plan
        plans.setdefault(name_of(bundle, calibrated) or "calibrated", calibrated)
    return plans


def _build_target(builder: _Builder, compute_capability: str, precision: Precision, name: str, plan: Plan) -> Path:
    request, platform = builder.request, builder.platform
    target = target_name(request.library, compute_capability, precision, name)
    folder = Path(tempfile.mkdtemp(prefix=f".{target}.", dir=builder.root))
    try:
        with _assembled(builder.bundle, plan, precision, folder) as graphs:
            what = f"{name} {precision}"
            built = [_build_stage(builder, graph, folder, compute_capability, what) for graph in graphs]
        record = EngineRecord(
            library=request.library,
            library_version=platform.library_version,
            precision=precision,
            plan_name=name,
            plan=plan,
            compute_capability=compute_capability,
            gpu=platform.gpu,
            driver=platform.driver,
            profile=request.profile,
            options=built[0][1],
            stages=tuple(stage for stage, _ in built),
        )
        save_record(folder, record)
        folder.chmod(0o755)
        _replace(builder.root / target, folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return builder.root / target


@dataclass(frozen=True)
class _StageGraph:
    """The ONNX file of a stage; weights outside it are in files next to it. built_from: see StageFile."""

    stage: Stage
    file: Path
    outside: bool
    built_from: str


@contextmanager
def _assembled(bundle: Bundle, plan: Plan, precision: Precision, folder: Path) -> Iterator[list[_StageGraph]]:
    """The graphs of a plan's stages, in a folder of their own inside `folder` that is gone at the end.

    They are assembled from bytes that were hashed, since the bundle's files may change meanwhile; the builder opens
    the copies of weights outside by name.
    """
    place = folder / "graphs"
    place.mkdir()
    data = {bundle.graph(role, precision).data for role in list_roles(bundle, plan)} - {None}
    for name in data:
        bundle.copy(str(name), place / str(name))
    graphs = []
    recipe = make_recipe(bundle, plan, precision, weights=False)  # the builder reads those outside itself
    for stage in list_stages(plan):
        file = place / f"stage{stage.number + 1}.onnx"
        file.write_bytes(build_stage(recipe, stage))
        identity = identify_stage(bundle, plan, precision, stage)
        graphs.append(_StageGraph(stage, file.absolute(), bool(data), identity))
    yield graphs
    shutil.rmtree(place, ignore_errors=True)


def _build_stage(
    builder: _Builder, graph: _StageGraph, folder: Path, compute_capability: str, what: str
) -> tuple[StageFile, dict[str, str]]:
    """Build the engine of a stage; returns its entry and the options it was built with. what: plan and precision."""
    started, request = time.monotonic(), builder.request
    number = graph.stage.number + 1  # as people count
    name = f"{what} stage {number}"
    job = BuildJob(
        library=request.library,
        name=name,
        model=graph.file if graph.outside else None,
        plan=(folder / f"stage{number}.plan").absolute(),
        compute_capability=compute_capability,
        profile=request.profile,
        workspace_mb=request.workspace_mb,
        timing_cache=request.timing_cache.absolute() if request.timing_cache else None,
    )
    with graph.file.open("rb") as onnx:
        options = build_plan(job, onnx, builder.report)
    built = describe_file(job.plan)
    seconds = time.monotonic() - started
    target = f"sm{compute_capability.replace('.', '')}"
    builder.report(f"{name:<23} {target} {built.size / 1e6:.1f} MB, {seconds:.0f} s")
    file = StageFile(file=job.plan.name, sha256=built.sha256, size=built.size, built_from=graph.built_from)
    return file, options


def _replace(target: Path, folder: Path) -> None:
    """Replace the old folder by the new one in two renames, so that a reader almost never finds neither."""
    old = folder.with_name(folder.name + ".old")
    if target.is_symlink() or target.is_file():
        target.unlink()  # not an engine of ours: the link is removed, its target stays
    elif target.exists():
        target.rename(old)
    folder.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def ask_platform(library: EngineLibrary) -> BuilderPlatform:
    """What `library` can build for on this machine. Raises MissingExtraError and ExportError."""
    return BuilderPlatform.model_validate(_run(library, "ask", library, subprocess.DEVNULL, lambda _: None))


def build_plan(job: BuildJob, onnx: IO[bytes], report: Say) -> dict[str, str]:
    """Write the plan file of one ONNX file and return the options it was built with. Raises as build_engines."""
    return _run(job.library, "build", job.model_dump_json(), onnx, report)


def _run(library: EngineLibrary, verb: str, argument: str, stdin: IO[bytes] | int, report: Say) -> dict[str, Any]:
    """Run worker.main in a process of its own and return its answer; `report` gets its progress.

    Raises the DiffoodError the worker raised, and ExportError where it crashed, was killed or gave no answer.
    """
    answer: dict[str, Any] = {}
    with tempfile.TemporaryFile() as noise:
        process = subprocess.Popen(
            child_command(WORKER, verb, argument), stdin=stdin, stdout=subprocess.PIPE, stderr=noise
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                answer = parse_object(line) if line.endswith(b"\n") else {}  # a killed process may stop within a line
                if "progress" in answer:
                    report(answer["progress"])
            process.wait()
        finally:
            if process.poll() is None:  # interrupted: the builder must not go on alone
                process.kill()
                process.wait()
            process.stdout.close()
        noise.seek(max(0, noise.seek(0, os.SEEK_END) - 2000))
        last_words = noise.read().decode(errors="replace").strip().rpartition("\n")[2]
    if "error" in answer:
        kind, message = answer["error"]
        raise getattr(errors, kind)(message)
    if "result" not in answer or process.returncode:
        raise builder_died(library, process.returncode, last_words)
    return dict(answer["result"])
