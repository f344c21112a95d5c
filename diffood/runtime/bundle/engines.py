"""Engine files of a bundle at run time: which exist, what each is bound to, and whether it may be loaded.

engines/<target>/ contains one plan file per graph and engine.json. A plan file is executable code, so nothing here
returns one before its hash, its ONNX graph, its library and its GPU were compared.
"""

import hashlib
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import Bundle, FileName, Precision, Role, Sha256
from diffood.runtime.bundle.files import plain_folder, read_record, read_regular, write_record
from diffood.runtime.records import Record, Text, is_control_character

ENGINES = "engines"
RECORD = "engine.json"
MAX_RECORD_BYTES = 2**20
MAX_PLAN_BYTES = 8 * 2**30  # a UNet of two billion parameters in FP32

EngineLibrary = Literal["tensorrt", "tensorrt-rtx"]


class Profile(Record):
    """Rows of an engine call: the fewest, the number it is tuned for, the most."""

    smallest: Annotated[int, Field(ge=1)]
    usual: Annotated[int, Field(ge=1)]
    largest: Annotated[int, Field(ge=1)]


DEFAULT_PROFILE = Profile(smallest=1, usual=32, largest=64)  # of `diffood export --engine`


class PlanFile(Record):
    """One serialised engine; onnx_sha256 is that of the ONNX graph it was built from, as Bundle.sha256 gives it."""

    role: Role
    file: FileName
    sha256: Sha256
    size: Annotated[int, Field(ge=1, le=MAX_PLAN_BYTES)]
    onnx_sha256: Sha256


class EngineRecord(Record):
    """The content of engine.json.

    Attributes:
        format: Format of the file.
        library: What built it.
        library_version: Version of the library; another cannot load the engine.
        precision: Of the graphs it was built from.
        compute_capability: Of the GPU it runs on, e.g. "8.6".
        gpu: Name of the GPU it was built on; None for tensorrt-rtx, whose builder uses none.
        driver: Its driver; None for tensorrt-rtx.
        profile: Rows of an engine call.
        options: Options of the builder.
        plans: One plan file per graph.
    """

    format: Literal[1] = 1
    library: EngineLibrary
    library_version: Text
    precision: Precision
    compute_capability: Annotated[str, Field(pattern=r"^[0-9]{1,2}\.[0-9]$")]
    gpu: Text | None
    driver: Text | None
    profile: Profile
    options: dict[Text, Text]
    plans: tuple[PlanFile, ...]


@dataclass(frozen=True)
class EngineHost:
    """A library installed here and the GPU it would use: its compute capability, e.g. "8.6", and name where known."""

    library: EngineLibrary
    library_version: str
    compute_capability: str
    gpu: str | None = None


@dataclass(frozen=True)
class EngineFolder:
    """An engine folder whose record was read and validated; its plan files have not been opened."""

    path: Path
    record: EngineRecord

    @property
    def digest(self) -> str:
        """One hash over those of the plan files; part of the fingerprint."""
        return hashlib.sha256("".join(sorted(plan.sha256 for plan in self.record.plans)).encode()).hexdigest()


def target_name(library: EngineLibrary, compute_capability: str, precision: Precision) -> str:
    """Folder name of an engine, e.g. tensorrt-rtx-sm86-fp16."""
    return f"{library}-sm{compute_capability.replace('.', '')}-{precision}"


def engines_folder(bundle: Bundle) -> Path:
    """The bundle's folder of engines, which need not exist. Raises BundleError if it is a link or not a folder."""
    return plain_folder(bundle.path, ENGINES)


def list_engines(bundle: Bundle) -> list[EngineFolder]:
    """Read the records of all engine folders, by name. Raises BundleError if one is damaged."""
    root = engines_folder(bundle)
    # a name with a leading dot is an engine being built, or the remains of a killed build
    folders = sorted(folder for folder in root.glob("[!.]*") if folder.is_dir()) if root.is_dir() else []
    return [_read(folder) for folder in folders]


def _read(folder: Path) -> EngineFolder:
    remedy = "remove that folder and build the engine again"
    if any(map(is_control_character, folder.name)):  # tables show it
        raise BundleError(
            f"{folder.parent} has a folder whose name contains control characters, {folder.name!r}; {remedy}."
        )
    if folder.is_symlink():
        raise BundleError(f"{folder} is a link; a bundle holds plain folders and files only: {remedy}.")
    return EngineFolder(folder, read_record(folder, RECORD, EngineRecord, limit=MAX_RECORD_BYTES, remedy=remedy))


def rebuild_command(bundle: Bundle, machine: EngineHost, precision: Precision, batch: int) -> str:
    """The command that builds an engine for this machine which takes `batch` rows, and all that the default takes."""
    gpu = f" --gpu sm{machine.compute_capability.replace('.', '')}" if machine.library == "tensorrt-rtx" else ""
    rows = f" --engine-batch {DEFAULT_PROFILE.smallest},{batch},{batch}" if batch > DEFAULT_PROFILE.largest else ""
    where = shlex.quote(str(bundle.path))
    return f"diffood export --bundle {where} --engine {machine.library}{gpu} --precision {precision}{rows}"


def find_engine(bundle: Bundle, machine: EngineHost, precision: Precision, batch: int) -> EngineFolder:
    """The engine of this bundle that this machine may run. Raises BundleError naming each mismatch and the remedy."""
    engines = [
        e for e in list_engines(bundle) if (e.record.library, e.record.precision) == (machine.library, precision)
    ]
    remedy = rebuild_command(bundle, machine, precision, batch)
    if not engines:
        raise BundleError(f"{bundle.path} has no {machine.library} engine in {precision}: run `{remedy}`.")
    problems = {engine.path.name: _mismatch(bundle, engine.record, machine, batch) for engine in engines}
    for engine in engines:
        if not problems[engine.path.name]:
            return engine
    reasons = "; ".join(f"{name} {problem}" for name, problem in problems.items())
    raise BundleError(f"No engine of {bundle.path} fits this machine: {reasons}. Run `{remedy}`.")


def _mismatch(bundle: Bundle, record: EngineRecord, machine: EngineHost, batch: int) -> str:
    """Why this engine must not run here; "" if it may."""
    if record.compute_capability != machine.compute_capability:
        return (
            f"was built for compute capability {record.compute_capability}, this GPU has {machine.compute_capability}"
        )
    if record.library_version != machine.library_version:
        return f"was built by {record.library} {record.library_version}, {machine.library_version} is installed"
    if record.gpu and machine.gpu and record.gpu != machine.gpu:
        return f"was built on {record.gpu}, this GPU is {machine.gpu}"
    if not record.profile.smallest <= batch <= record.profile.largest:
        return f"takes {record.profile.smallest} to {record.profile.largest} rows, --batch is {batch}"
    for plan in record.plans:
        graph = bundle.graph(plan.role, record.precision)
        if plan.onnx_sha256 != bundle.sha256(graph):
            return f"was built from another {graph.file} than the bundle's"
    return ""


def read_plan(engine: EngineFolder, role: Role) -> bytes:
    """Bytes of one plan file, hashed: the bytes returned are those that were checked. Raises BundleError."""
    remedy = "remove its folder and build the engine again"
    for plan in engine.record.plans:
        if plan.role == role:
            break
    else:
        raise BundleError(f"{engine.path} has no {role} engine; {remedy}.")
    data = read_regular(engine.path, plan.file, plan.size, remedy)
    found = hashlib.sha256(data).hexdigest()
    if found != plan.sha256:
        raise BundleError(
            f"{engine.path / plan.file} was changed after it was built: its sha256 is {found[:12]}…, {RECORD} says "
            f"{plan.sha256[:12]}…. An engine is code: do not run it, {remedy}."
        )
    return data


def save_record(folder: Path, record: EngineRecord) -> None:
    """Write engine.json into the folder of its plan files."""
    write_record(folder, RECORD, record)
