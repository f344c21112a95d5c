"""The bundle: a folder of graphs, golden values and a manifest. Opens and checks it; runs nothing."""

import hashlib
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Final, Literal, get_args

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from diffood.errors import BundleError, EngineMemoryError, UsageError
from diffood.runtime.bundle.arrays import load_noise_levels
from diffood.runtime.bundle.digest import HashedFiles, digest_of, hash_file, hash_files
from diffood.runtime.bundle.files import (
    MAX_FILE_BYTES,
    open_regular,
    parse_content,
    plain_folder,
    read_pieces,
    read_regular,
    require_bundle_folder,
    validate_record,
)
from diffood.runtime.bundle.trust import Trust, asked_by_environment, begin_check
from diffood.runtime.bundle.unlisted import UnlistedFiles
from diffood.runtime.images.decode import ImageShape
from diffood.runtime.method.plan import Plan
from diffood.runtime.method.schedule import Prediction, StepTable
from diffood.runtime.printable import shell_word
from diffood.runtime.records import Name, Record, Text

FORMAT: Final = 3
MANIFEST = "manifest.json"
CLASSIFY = "classify.onnx"  # of every bundle
CALIBRATION = "calibration.json"
PARITY = "parity.json"
TUNING = "tuning.json"
DETECTORS = "detector.json"
ENGINES = "engines"
KEPT = "calibrations"  # folder of replaced calibrations and of all banks, named by their hashes
MAX_MANIFEST_BYTES = 4 * 2**20  # a manifest is some kilobytes; class names of the largest sets stay below this
MAX_CLASSES = 100_000  # ImageNet has 22,000
MAX_LATENT_CHANNELS = 256  # autoencoders in use have 3 to 32

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Role = Literal["classify", "step_guided", "step_plain", "encode", "decode"]
Precision = Literal["fp32", "fp16", "int8"]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]*$", max_length=100)]

DETECTOR_FILES: dict[Precision, FileName] = {
    "fp32": "detector.onnx",
    "fp16": "detector.fp16.onnx",
    "int8": "detector.int8.onnx",
}
# Written after export, or anew by every calibration; each says itself what it is valid for, or DETECTORS does.
NOT_IN_MANIFEST = (MANIFEST, CALIBRATION, PARITY, TUNING, DETECTORS, *DETECTOR_FILES.values())


class FileEntry(Record):
    """A file of the bundle's folder: sha256 and number of its bytes."""

    sha256: Sha256
    size: Annotated[int, Field(ge=0, le=MAX_FILE_BYTES)]


class GraphEntry(Record):
    """One ONNX graph.

    Attributes:
        role: classify; step_guided (two UNet evaluations per row) or step_plain (one); encode and decode.
        file: Its ONNX file.
        data: File with the weights of a large graph, shared by graphs of the same weights; None: all are in `file`.
        precision: Of the variant it belongs to. That of fp16 or int8 may name the FP32 file of encode or decode.
        opset: ONNX opset.
        error: Largest difference from FP32 torch in the export's proofs, relative to the largest output.
        weights: Number of weight values by type, e.g. {"float16": 687473}.
    """

    role: Role
    file: FileName
    data: FileName | None = None
    precision: Precision
    opset: int
    error: Annotated[float, Field(ge=0)]
    weights: dict[Text, Annotated[int, Field(ge=0)]]


class ModelEntry(Record):
    """A model the bundle was made from: its origin in words, the hash of its weights, its number of parameters."""

    origin: Text
    weights_sha256: Sha256
    parameters: int


class UNetEntry(ModelEntry):
    """How the UNet is called; labels "class+null" means that the last label is the null class."""

    prediction: Prediction
    labels: Literal["none", "class", "class+null"]
    label_count: Annotated[int, Field(ge=0)]
    schedule_origin: Text


class LatentEntry(ModelEntry):
    """The autoencoder whose latents [channels, height, width] are noised and denoised instead of images."""

    channels: Annotated[int, Field(ge=1, le=MAX_LATENT_CHANNELS)]
    height: Annotated[int, Field(ge=1)]
    width: Annotated[int, Field(ge=1)]


class Manifest(Record):
    """The content of manifest.json.

    Attributes:
        format: Format of the bundle.
        image: What the models take; other images are resized and converted.
        class_names: Of the classifier, in its order.
        feature_count: Length D of the features.
        classifier: Where the classifier came from.
        unet: Where the UNet came from and how it is called; None for a bundle without, whose plans denoise nothing.
        noise_levels: File of the training schedule; None without a UNet.
        golden: File of images and what FP32 must give for them.
        graphs: All graphs.
        plans: Plans by name.
        default_plan: Name of the plan that is used if none is named.
        files: Every file that may be opened, apart from calibrations.
        versions: Of the libraries the bundle was made with.
        latent: The autoencoder; None if images are denoised as they are.
    """

    format: Literal[3]
    image: ImageShape
    class_names: Annotated[tuple[Name, ...], Field(min_length=1, max_length=MAX_CLASSES)]
    feature_count: Annotated[int, Field(ge=1)]
    classifier: ModelEntry
    unet: UNetEntry | None = None
    noise_levels: FileName | None = None
    golden: FileName
    graphs: tuple[GraphEntry, ...]
    plans: dict[Text, Plan]
    default_plan: Text
    files: dict[FileName, FileEntry]
    versions: dict[Text, Text]
    latent: LatentEntry | None = None

    @model_validator(mode="after")
    def _parts_fit(self) -> "Manifest":
        if (self.unet is None) != (self.noise_levels is None):
            raise ValueError("unet and noise_levels go together, and one is missing")
        if self.unet is None and (self.latent or any(plan.denoises for plan in self.plans.values())):
            raise ValueError("there is no unet, and a plan or an autoencoder that needs one")
        latent, image = self.latent, self.image
        if latent and (latent.height > image.height or latent.width > image.width):
            raise ValueError(
                f"latents of {latent.height}x{latent.width} are larger than the images, {image.height}x{image.width}"
            )
        return self

    @property
    def noised_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what is noised and denoised: latents, or images."""
        shape = self.latent or self.image
        return shape.channels, shape.height, shape.width


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: every file was hashed, nothing was executed.

    Attributes:
        path: Its folder.
        manifest: Its manifest.
        alpha_bar: Noise levels of the training schedule, float64 [T], decreasing in (0, 1); [0] without a UNet.
        manifest_sha256: Hash of the manifest's bytes as they were read.
        unlisted: The files that the manifest does not list, of which each says what it said when it was first read.
    """

    path: Path
    manifest: Manifest
    alpha_bar: npt.NDArray[np.float64]
    manifest_sha256: str
    unlisted: UnlistedFiles = field(compare=False, repr=False)

    def hash_files(self) -> dict[str, str]:
        """sha256 of every file that the bundle can use, by path; what was used is not read again, it may be swapped."""
        listed = {name: entry.sha256 for name, entry in self.manifest.files.items()}
        known = {MANIFEST: self.manifest_sha256, **listed, **self.unlisted.hashes}
        return hash_files(self.path, known, NOT_IN_MANIFEST[1:], {KEPT: 0, ENGINES: 1})

    @property
    def digest(self) -> str:
        """One hash over all files that the bundle can use, as they were used, or else are now."""
        return digest_of(self.hash_files())

    def read(self, name: str) -> bytes:
        """Bytes of a file of the manifest, hashed again: the bytes returned are those that were checked.

        Raises BundleError.
        """
        data = read_regular(self.path, name, self.entry(name).size)
        self._require_hash(name, hashlib.sha256(data).hexdigest())
        return data

    def check_files(self) -> None:
        """Hash the files of the manifest, a piece at a time. Raises BundleError."""
        hashed = HashedFiles()
        for name, entry in self.manifest.files.items():
            self._require_hash(name, hash_file(self.path, name, hashed, entry.size))

    def copy(self, name: str, target: Path) -> None:
        """Copy a file of the manifest, hashed on the way. Raises BundleError; `target` must not be used then."""
        with target.open("wb") as file:
            for piece in self._pieces(name):
                file.write(piece)

    def load(self, name: str) -> npt.NDArray[np.uint8]:
        """Bytes of a large file in this process's own memory, hashed as they were read; page-aligned, read-only.

        Not a memory map of the file: others could change or truncate it after it was hashed. Raises BundleError,
        EngineMemoryError.
        """
        size = self.entry(name).size
        try:
            memory = np.frombuffer(mmap.mmap(-1, max(1, size)), np.uint8)
        except OSError:
            raise EngineMemoryError(
                f"{self.path / name} has {size} bytes and there is not enough memory: close programs, or use fp16."
            ) from None
        at = 0
        for piece in self._pieces(name):
            memory[at : at + len(piece)] = np.frombuffer(piece, np.uint8)
            at += len(piece)
        memory.flags.writeable = False
        return memory[:size]

    def _pieces(self, name: str) -> Iterator[bytes]:
        """A file of the manifest in pieces; raises BundleError after the last if the hash is another."""
        size, digest = self.entry(name).size, hashlib.sha256()
        with open_regular(self.path, name, size) as file:
            for piece in read_pieces(file, size):
                digest.update(piece)
                yield piece
        self._require_hash(name, digest.hexdigest())

    def _require_hash(self, name: str, found: str) -> None:
        wanted = self.entry(name).sha256
        if found != wanted:
            raise BundleError(
                f"{self.path / name} was changed after export: its sha256 is {found[:12]}…, the manifest says "
                f"{wanted[:12]}…. Do not use it; copy the bundle again or export it anew."
            )

    def entry(self, name: str) -> FileEntry:
        """The manifest's entry of a file. Raises BundleError if there is none."""
        entry = self.manifest.files.get(name)
        if entry is None:
            raise BundleError(f"{self.path}: {name!r} is not among the manifest's files; export the bundle again.")
        return entry

    def sha256(self, graph: GraphEntry) -> str:
        """Hash of a graph with all its weights: that of its file, or of the hashes of both files if it has two."""
        own = self.entry(graph.file).sha256
        return own if graph.data is None else hashlib.sha256((own + self.entry(graph.data).sha256).encode()).hexdigest()

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The precisions this bundle has graphs in, fp32 first."""
        held = {entry.precision for entry in self.manifest.graphs}
        return tuple(precision for precision in get_args(Precision) if precision in held)

    def graph(self, role: Role, precision: Precision = "fp32") -> GraphEntry:
        """The graph of this role and precision. Raises BundleError if the bundle has none."""
        for entry in self.manifest.graphs:
            if (entry.role, entry.precision) == (role, precision):
                return entry
        if precision not in self.precisions:
            raise BundleError(
                f"{self.path} has no {precision} graphs, only {', '.join(self.precisions)}: "
                f"add them by `diffood export --bundle {shell_word(self.path)} --precision {precision}"
                f"{' --images DIR' if precision == 'int8' else ''}`."
            )
        hint = " (its UNet has no null class, so guidance must be 0)" if role == "step_guided" else ""
        roles = dict.fromkeys(entry.role for entry in self.manifest.graphs)
        raise BundleError(f"{self.path} has no {role} graph{hint}; it has {', '.join(roles)}.")

    def plan(self, name: str | None = None) -> Plan:
        """The plan of this name, or the default one. Raises UsageError listing the names there are."""
        name = name or self.manifest.default_plan
        if name not in self.manifest.plans:
            raise UsageError(f"No plan {name!r} in this bundle; it has: {', '.join(sorted(self.manifest.plans))}.")
        return self.manifest.plans[name]

    def tables(self, plan: Plan) -> list[StepTable]:
        """Step tables of a plan for this bundle's noise levels; none where it denoises nothing."""
        if not plan.denoises:
            return []
        return plan.tables(self.alpha_bar, self.require_unet("a plan with start times denoises images").prediction)

    def require_unet(self, why: str) -> UNetEntry:
        """The UNet's entry. Raises UsageError, which says why one is needed, where the bundle has none."""
        if self.manifest.unet is None:
            raise UsageError(
                f"{self.path} has no UNet, and {why}. Train one with `diffood train-unet --images DIR --output unet`, "
                "or take one there is, and export again with --unet."
            )
        return self.manifest.unet


def kept_folder(bundle: Bundle) -> Path:
    """The bundle's folder of earlier calibrations, which need not exist. Raises BundleError if it is a link."""
    return plain_folder(bundle.path, KEPT)


def open_bundle(path: str | Path, trust: Trust | None = None) -> Bundle:
    """Open a bundle folder: what is asked of it proven, manifest validated, every file's hash checked.

    Args:
        path: The folder.
        trust: What is asked of it; None: what DIFFOOD_TRUST and DIFFOOD_EXPECT_DIGEST ask.

    Raises:
        BundleError: It says which file is wrong, how, and what to do.
        UsageError: A key to trust cannot be read.
        MissingExtraError: Keys are to be trusted, and cryptography is not installed.
    """
    path = Path(path)
    require_bundle_folder(path, MANIFEST, CLASSIFY)
    check = begin_check(path, asked_by_environment() if trust is None else trust)
    data = read_regular(path, MANIFEST, MAX_MANIFEST_BYTES)
    manifest_sha256 = hashlib.sha256(data).hexdigest()
    check.require(MANIFEST, manifest_sha256)
    manifest = _parse_manifest(path, data)
    if manifest.default_plan not in manifest.plans:
        raise BundleError(f"{path / MANIFEST}: default_plan {manifest.default_plan!r} is not among its plans.")
    bundle = Bundle(path, manifest, np.empty(0), manifest_sha256, UnlistedFiles(path))
    bundle = replace(bundle, unlisted=UnlistedFiles(path, check.finish(bundle.hash_files)))
    bundle.check_files()
    if manifest.noise_levels is None:
        return bundle
    levels = load_noise_levels(bundle.read(manifest.noise_levels), path / manifest.noise_levels)
    return replace(bundle, alpha_bar=levels)


def is_bundle(path: Path) -> bool:
    """Whether a folder looks like a bundle, damaged or not; never raises."""
    return all(os.path.isfile(path / name) for name in (MANIFEST, CLASSIFY))  # noqa: PTH113 - Path's may raise


def _parse_manifest(path: Path, data: bytes) -> Manifest:
    where, remedy = path / MANIFEST, "export the bundle anew, or copy it again, whole"
    content = parse_content(data, where, remedy)
    found = content.get("format") if isinstance(content, dict) else None
    if isinstance(found, int) and found > FORMAT:
        raise BundleError(
            f"{where} has format {found}; this diffood reads format {FORMAT}. "
            "Upgrade diffood (`pip install -U diffood`) or export the bundle with this version."
        )
    if type(found) is int and 1 <= found < FORMAT:
        raise BundleError(
            f"{where} has format {found}, of an earlier diffood: export the bundle again from its models, and "
            "calibrate it again."
        )
    return validate_record(content, where, Manifest, remedy)
