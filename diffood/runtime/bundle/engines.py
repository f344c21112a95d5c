"""Engine files of a bundle: which there are, what each was built from, and their bytes once these were hashed.

engines/<target>-<plan>/ holds engine.json and one of TensorRT's plan files for each stage of a plan. A plan file is
executable code: sessions.engines compares what it was built from, for and by before it asks for one.
"""

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import ENGINES, Bundle, FileName, Precision, Sha256
from diffood.runtime.bundle.files import plain_folder, write_record
from diffood.runtime.method.plan import Plan
from diffood.runtime.printable import is_hidden
from diffood.runtime.records import Record, Text

RECORD = "engine.json"
FORMAT = 2
MAX_RECORD_BYTES = 2**20
MAX_PLAN_BYTES = 8 * 2**30  # a UNet of two billion parameters in FP32

EngineLibrary = Literal["tensorrt", "tensorrt-rtx"]


class Profile(Record):
    """Images of an engine call: the fewest, the number it is tuned for, the most."""

    smallest: Annotated[int, Field(ge=1)]
    usual: Annotated[int, Field(ge=1)]
    largest: Annotated[int, Field(ge=1)]


DEFAULT_PROFILE = Profile(smallest=1, usual=32, largest=64)  # of `diffood export --engine`


class StageFile(Record):
    """The engine of one stage.

    Attributes:
        file: Its plan file.
        sha256: Of the file.
        size: Of the file in bytes.
        built_from: Hash of what its graph was assembled from, as assembly.identity gives it.
    """

    file: FileName
    sha256: Sha256
    size: Annotated[int, Field(ge=1, le=MAX_PLAN_BYTES)]
    built_from: Sha256


class EngineRecord(Record):
    """The content of engine.json.

    Attributes:
        format: Format of the file.
        library: What built it.
        library_version: Version of the library; another cannot load the engine.
        precision: Of the graphs it was built from.
        plan_name: Name of the plan, for people.
        plan: The plan whose stages it runs.
        compute_capability: Of the GPU it runs on, e.g. "8.6".
        gpu: Name of the GPU it was built on; None for tensorrt-rtx, whose builder uses none.
        driver: Its driver; None for tensorrt-rtx.
        profile: Images of an engine call.
        options: Options of the builder.
        stages: Their engines, in order.
    """

    format: Literal[2] = 2
    library: EngineLibrary
    library_version: Text
    precision: Precision
    plan_name: Text
    plan: Plan
    compute_capability: Annotated[str, Field(pattern=r"^[0-9]{1,2}\.[0-9]$")]
    gpu: Text | None
    driver: Text | None
    profile: Profile
    options: dict[Text, Text]
    stages: Annotated[tuple[StageFile, ...], Field(min_length=1)]

    @field_validator("format", mode="before")
    @classmethod
    def _of_this_diffood(cls, value: object) -> object:
        if isinstance(value, int) and value != FORMAT:
            raise ValueError(f"this diffood reads format {FORMAT}")
        return value

    @model_validator(mode="after")
    def _possible(self) -> "EngineRecord":
        profile = self.profile
        if not profile.smallest <= profile.usual <= profile.largest:
            raise ValueError(f"{profile.smallest}, {profile.usual}, {profile.largest} images do not ascend")
        if len(self.stages) != len(self.plan.stages) + 1:
            raise ValueError(f"{len(self.stages)} engines for a plan of {len(self.plan.stages) + 1} stages")
        return self


@dataclass(frozen=True)
class EngineFolder:
    """An engine folder whose record was read and validated; its plan files have not been opened."""

    bundle: Bundle = field(compare=False, repr=False)
    path: Path
    record: EngineRecord

    @property
    def digest(self) -> str:
        """One hash over those of the plan files, in their order; part of the fingerprint."""
        return hashlib.sha256("".join(stage.sha256 for stage in self.record.stages).encode()).hexdigest()


def target_name(library: EngineLibrary, compute_capability: str, precision: Precision, plan_name: str) -> str:
    """Folder name of an engine, e.g. tensorrt-rtx-sm86-fp16-default."""
    plain = re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,49}", plan_name)
    plan = plan_name if plain else f"plan{hashlib.sha256(plan_name.encode()).hexdigest()[:8]}"
    return f"{library}-sm{compute_capability.replace('.', '')}-{precision}-{plan}"


def engines_folder(bundle: Bundle) -> Path:
    """The bundle's folder of engines, which need not exist. Raises BundleError if it is a link or not a folder."""
    return plain_folder(bundle.path, ENGINES)


def list_engines(bundle: Bundle) -> list[EngineFolder]:
    """Read the records of all engine folders, by name. Raises BundleError if one is damaged."""
    root = engines_folder(bundle)
    # a name with a leading dot is an engine being built, or the remains of a killed build
    folders = sorted(folder for folder in root.glob("[!.]*") if folder.is_dir()) if root.is_dir() else []
    return [_read(bundle, folder) for folder in folders]


def _read(bundle: Bundle, folder: Path) -> EngineFolder:
    remedy = "remove that folder and build the engine again"
    if any(map(is_hidden, folder.name)):  # tables show it
        raise BundleError(
            f"{folder.parent} has a folder whose name contains control or hidden characters, {folder.name!r}; {remedy}."
        )
    if folder.is_symlink():
        raise BundleError(f"{folder} is a link; a bundle holds plain folders and files only: {remedy}.")
    name = f"{ENGINES}/{folder.name}/{RECORD}"
    record = bundle.unlisted.read_record(name, EngineRecord, MAX_RECORD_BYTES, remedy)
    expected = target_name(record.library, record.compute_capability, record.precision, record.plan_name)
    if folder.name != expected:
        raise BundleError(f"{folder} holds the engine {expected}, as its {RECORD} says; {remedy}.")
    return EngineFolder(bundle, folder, record)


def read_plan(engine: EngineFolder, stage: StageFile) -> bytes:
    """Bytes of a stage's plan file, hashed: the bytes returned are those that were checked. Raises BundleError."""
    remedy = "remove its folder and build the engine again"
    name = f"{ENGINES}/{engine.path.name}/{stage.file}"
    data = engine.bundle.unlisted.read(name, stage.size, remedy)
    found = engine.bundle.unlisted.hashes[name]
    if found != stage.sha256:
        raise BundleError(
            f"{engine.path / stage.file} was changed after it was built: its sha256 is {found[:12]}…, {RECORD} says "
            f"{stage.sha256[:12]}…. An engine is code: do not run it, {remedy}."
        )
    return data


def save_record(folder: Path, record: EngineRecord) -> None:
    """Write engine.json into the folder of its plan files."""
    write_record(folder, RECORD, record)
