"""One worker of a cluster: opens the bundle once, turns blocks of files into rows. Ray runs it; it knows no Ray."""

import contextlib
import hashlib
import itertools
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffood import __version__
from diffood.errors import BundleError, DiffoodError, UsageError
from diffood.runtime.bundle.bundle import CALIBRATION, MANIFEST, MAX_MANIFEST_BYTES, Backend
from diffood.runtime.bundle.calibration import MAX_CALIBRATION_BYTES, Fingerprint
from diffood.runtime.bundle.files import read_regular
from diffood.runtime.detector import Detector
from diffood.runtime.images.decode import Limits
from diffood.runtime.inputs.decode_worker import load_item
from diffood.runtime.inputs.decoding import Decoding
from diffood.runtime.inputs.items import PAUSE, Item, Pause
from diffood.runtime.sessions.choice import PrecisionChoice
from diffood.serving.batch import Here
from diffood.serving.rows.row import Row


@dataclass(frozen=True)
class Identity:
    """What must be the same on every machine before one row is made. The hashes are of the two files as they lie."""

    diffood: str
    manifest_sha256: str
    calibration_sha256: str


@dataclass(frozen=True)
class Work:
    """What every worker does. bundle: absolute, the same path everywhere; folder: where relative inputs begin."""

    bundle: Path
    identity: Identity
    folder: Path
    backend: Backend
    precision: PrecisionChoice | None
    batch: int
    threads: int
    limits: Limits
    decoding: Decoding
    pictures: bool


@dataclass(frozen=True)
class Opened:
    """A worker that is ready. node: the machine's name; fingerprint: of the detector it opened."""

    node: str
    process: int
    fingerprint: Fingerprint
    why: str


@dataclass(frozen=True)
class Sight:
    """A file as the driver sees it, by which a machine shows that it sees the same files."""

    source: Item
    sha256: str


def identify(bundle: Path) -> Identity:
    """The identity of a calibrated bundle here. Raises BundleError where a file is missing or none."""
    if not bundle.is_dir():
        raise BundleError(f"{bundle} is not a bundle: no such folder.")
    remedy = "a bundle that serves on a cluster is calibrated and lies whole at one path on every machine"
    manifest = read_regular(bundle, MANIFEST, MAX_MANIFEST_BYTES, remedy)
    calibration = read_regular(bundle, CALIBRATION, MAX_CALIBRATION_BYTES, remedy)
    return Identity(__version__, hashlib.sha256(manifest).hexdigest(), hashlib.sha256(calibration).hexdigest())


class Worker:
    """One detector on one machine. What it raises to the driver is a DiffoodError that names the machine, or a bug."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def open(self) -> Opened:
        """Open the bundle. BundleError where it is not the driver's; what opening a Detector raises."""
        with _naming_the_machine():
            self._require_the_same()
            work = self._work
            with contextlib.suppress(OSError):  # missed only by relative inputs, which `Sight` finds
                os.chdir(work.folder)
            self._detector = Detector.open(
                work.bundle, backend=work.backend, precision=work.precision, batch=work.batch, threads=work.threads
            )
            self._detector.spares_memory = True
            here = Here(self._detector, self._detector.calibration(), work.limits, work.decoding, work.pictures)
            self._rows = here.rows(self._feed())
            return Opened(socket.gethostname(), os.getpid(), self._detector.fingerprint, self._detector.why)

    def score(self, sources: Sequence[Item], sight: Sight | None) -> list[tuple[Row, bytes | None]]:
        """Rows of a block with their pictures, in its order.

        UsageError where this machine sees another file than the driver at `sight`.
        """
        with _naming_the_machine():
            if sight:
                self._require_seen(sight)
            self._block = sources
            return [(scored.row, scored.picture) for scored in itertools.islice(self._rows, len(sources))]

    def _feed(self) -> Iterator[Item | Pause]:
        """Blocks as they come, in one pass, so that the processes that decode outlive a block."""
        while True:
            yield from self._block
            yield PAUSE  # behind which nothing is asked for until all of the block is given

    def _require_the_same(self) -> None:
        found, expected = identify(self._work.bundle), self._work.identity
        if found.diffood != expected.diffood:
            raise UsageError(
                f"diffood {found.diffood} is installed here, the run was started with {expected.diffood}; "
                "install one version on every machine."
            )
        for name, mine, theirs in (
            (MANIFEST, found.manifest_sha256, expected.manifest_sha256),
            (CALIBRATION, found.calibration_sha256, expected.calibration_sha256),
        ):
            if mine != theirs:
                raise BundleError(
                    f"{self._work.bundle / name} is not the one the run was started with (sha256 {mine[:8]}… here, "
                    f"{theirs[:8]}… there); copy the bundle to the same path on every machine."
                )

    def _require_seen(self, sight: Sight) -> None:
        loaded = load_item(sight.source, self._detector.bundle.manifest.image, self._work.limits)
        if loaded.sha256 != sight.sha256:
            found = f"sha256 {loaded.sha256[:8]}…" if loaded.sha256 else loaded.error
            raise UsageError(
                f"{sight.source.id!r} is another file here than where the run was started ({found} here, sha256 "
                f"{sight.sha256[:8]}… there); mount the inputs at the same path on every machine."
            )


@contextlib.contextmanager
def _naming_the_machine() -> Iterator[None]:
    try:
        yield
    except DiffoodError as error:
        raise type(error)(f"On {socket.gethostname()}: {error}") from None
