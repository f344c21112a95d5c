"""Builds the TensorRT engines of a bundle and records what each is bound to; the builders run in engine_worker.py."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from diffood import errors
from diffood.errors import UsageError
from diffood.export.engines.errors import died
from diffood.export.engines.worker import Job, Platform
from diffood.runtime.bundle.bundle import Bundle, GraphEntry, Precision, describe_file, open_bundle
from diffood.runtime.bundle.engines import (
    EngineLibrary,
    EngineRecord,
    PlanFile,
    Profile,
    engines_folder,
    save_record,
    target_name,
)
from diffood.runtime.sessions.graphs import read_model

Report = Callable[[str], None]

# The child imports what this process does, and never from the folder it happens to start in, as `python -m` would.
START = "import sys; sys.path[:] = {path!r}; from diffood.export.engines.worker import main; main(*sys.argv[1:])"


@dataclass(frozen=True)
class _Order:
    """What all engines of one call have in common."""

    library: EngineLibrary
    platform: Platform
    profile: Profile
    workspace_mb: int | None
    timing_cache: Path | None
    report: Report


def build_engines(
    bundle_path: Path,
    library: EngineLibrary,
    *,
    gpus: Sequence[str],
    precisions: Collection[Precision],
    profile: Profile,
    workspace_mb: int | None,
    timing_cache: Path | None,
    report: Report,
) -> list[Path]:
    """Build engines of every graph the bundle holds in `precisions`; returns their folders, engines/<target>/.

    tensorrt-rtx builds for each of `gpus`, as "sm86", and needs no GPU; tensorrt for this machine's, and takes none.
    A folder appears whole or not at all, and replaces the one before; those finished before an error stay. `report`
    gets a line a graph, and one every few seconds of a long build. Needs no torch. Raises UsageError, BundleError,
    MissingExtraError (library not installed), ExportError (node not supported, memory ran out, builder crashed).
    """
    bundle = open_bundle(bundle_path)
    for precision in precisions:
        bundle.graph("classify", precision)  # says what to do where the bundle has none
    _check(library, gpus, profile, workspace_mb, timing_cache)
    root = engines_folder(bundle)
    platform = ask_platform(library)
    order = _Order(library, platform, profile, workspace_mb, timing_cache, report)
    capabilities = _choose(gpus, platform, library) if library == "tensorrt-rtx" else platform.compute_capabilities
    where = f"for {platform.gpu}, {platform.driver}" if platform.gpu else "without a GPU"
    report(f"engines     {library} {platform.library_version}, {where}")
    root.mkdir(exist_ok=True)
    ordered = [precision for precision in bundle.precisions if precision in precisions]
    return [_build_target(bundle, root, order, cc, precision) for cc in capabilities for precision in ordered]


def _check(
    library: EngineLibrary, gpus: Sequence[str], profile: Profile, workspace_mb: int | None, timing_cache: Path | None
) -> None:
    rows = (profile.smallest, profile.usual, profile.largest)
    if list(rows) != sorted(rows):
        raise UsageError(f"--engine-batch {','.join(map(str, rows))} must ascend: fewest, usual, most rows.")
    if workspace_mb is not None and workspace_mb < 1:
        raise UsageError(f"--workspace {workspace_mb} is no memory to work with; give 1 MB or more.")
    if library == "tensorrt" and gpus:
        raise UsageError(
            f"--gpu {','.join(gpus)} is for --engine tensorrt-rtx: tensorrt builds for this machine's own GPU. "
            "Leave --gpu out."
        )
    if library == "tensorrt-rtx" and timing_cache:
        raise UsageError("tensorrt-rtx times nothing while it builds, so it has no timing cache: leave it out.")
    if timing_cache and not timing_cache.parent.is_dir():
        raise UsageError(f"--timing-cache {timing_cache} cannot be written: there is no folder {timing_cache.parent}.")


def _choose(gpus: Sequence[str], platform: Platform, library: EngineLibrary) -> list[str]:
    """Compute capabilities of GPUs given as "sm86", each once and in order."""
    known = {f"sm{capability.replace('.', '')}": capability for capability in platform.compute_capabilities}
    names = [gpu.strip().lower() for gpu in gpus]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        wrong = f"--gpu {unknown[0]!r} is unknown" if unknown else "--gpu is needed"
        raise UsageError(f"{wrong}: {library} {platform.library_version} builds for {', '.join(known)}.")
    return [known[name] for name in dict.fromkeys(names)]


def _build_target(bundle: Bundle, root: Path, order: _Order, compute_capability: str, precision: Precision) -> Path:
    name = target_name(order.library, compute_capability, precision)
    graphs = [graph for graph in bundle.manifest.graphs if graph.precision == precision]
    folder = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=root))
    try:
        built = [_add_plan(bundle, graph, folder, order, compute_capability) for graph in graphs]
        record = EngineRecord(
            library=order.library,
            library_version=order.platform.library_version,
            precision=precision,
            compute_capability=compute_capability,
            gpu=order.platform.gpu,
            driver=order.platform.driver,
            profile=order.profile,
            options=built[0][1],
            plans=tuple(plan for plan, _ in built),
        )
        save_record(folder, record)
        folder.chmod(0o755)
        _replace(root / name, folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return root / name


def _add_plan(
    bundle: Bundle, graph: GraphEntry, folder: Path, order: _Order, compute_capability: str
) -> tuple[PlanFile, dict[str, str]]:
    started = time.monotonic()
    beside = folder / "weights"
    job = Job(
        library=order.library,
        name=graph.file,
        model=(beside / graph.file).absolute() if graph.data else None,
        plan=(folder / f"{graph.role}.plan").absolute(),
        compute_capability=compute_capability,
        profile=order.profile,
        workspace_mb=order.workspace_mb,
        timing_cache=order.timing_cache.absolute() if order.timing_cache else None,
    )
    # What is built from are the bytes whose hash is recorded, not what the paths say a minute later: copies, of which
    # the builder opens the weights by name.
    model, _ = read_model(bundle, graph)
    with tempfile.TemporaryFile(dir=folder) as onnx:
        onnx.write(model)
        onnx.seek(0)
        if graph.data:
            beside.mkdir()
            bundle.copy(graph.data, beside / graph.data)
        options = build_plan(job, onnx, order.report)
    shutil.rmtree(beside, ignore_errors=True)
    built = describe_file(job.plan)
    seconds = time.monotonic() - started
    order.report(f"{graph.file:<17} sm{compute_capability.replace('.', '')} {built.size / 1e6:.1f} MB, {seconds:.0f} s")
    plan = PlanFile(
        role=graph.role,
        file=job.plan.name,
        sha256=built.sha256,
        size=built.size,
        onnx_sha256=bundle.sha256(graph),
    )
    return plan, options


def _replace(target: Path, folder: Path) -> None:
    """Put the new folder in the place of the old one: two renames, so that a reader hardly ever finds neither."""
    old = folder.with_name(folder.name + ".old")
    if target.is_symlink() or target.is_file():
        target.unlink()  # no engine of ours; the link goes, what it points to stays
    elif target.exists():
        target.rename(old)
    folder.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def ask_platform(library: EngineLibrary) -> Platform:
    """What `library` can build for on this machine. Raises MissingExtraError and ExportError."""
    return Platform.model_validate(_run(library, "ask", library, subprocess.DEVNULL, lambda _: None))


def build_plan(job: Job, onnx: IO[bytes], report: Report) -> dict[str, str]:
    """Write the plan file of one ONNX file and return the options it was built with. Raises as build_engines."""
    return _run(job.library, "build", job.model_dump_json(), onnx, report)


def _run(library: EngineLibrary, verb: str, argument: str, stdin: IO[bytes] | int, report: Report) -> dict[str, Any]:
    """Run engine_worker.main in a process of its own and return its answer; `report` gets its progress.

    Raises the DiffoodError the worker raised, and ExportError where it crashed, was killed or gave no answer.
    """
    program = START.format(path=sys.path)
    answer: dict[str, Any] = {}
    with tempfile.TemporaryFile() as noise:
        process = subprocess.Popen(
            [sys.executable, "-c", program, verb, argument], stdin=stdin, stdout=subprocess.PIPE, stderr=noise
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                answer = json.loads(line) if line.endswith(b"\n") else {}  # a killed process may stop within a line
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
        raise died(library, process.returncode, last_words)
    return dict(answer["result"])
