"""One worker of a cluster: opens the bundle once, turns blocks of files into rows. Ray runs it; it imports no Ray."""

import contextlib
import itertools
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffood import __version__
from diffood.errors import BundleError, DiffoodError, UsageError
from diffood.runtime.backends import Backend
from diffood.runtime.bundle.bundle import CALIBRATION, MANIFEST, Bundle
from diffood.runtime.bundle.calibration import Calibration, Fingerprint
from diffood.runtime.bundle.files import hash_record
from diffood.runtime.certificate import AS_CALIBRATED, ThresholdChoice
from diffood.runtime.detector import Detector
from diffood.runtime.images.decode import ImageLimits
from diffood.runtime.inputs.decoding import DecodeOptions
from diffood.runtime.inputs.items import PAUSE, Item, Pause
from diffood.runtime.sessions.choice import PrecisionChoice
from diffood.serving.cluster.connection import restore_proxies
from diffood.serving.local import LocalScorer
from diffood.serving.rows.row import Row


@dataclass(frozen=True)
class BundleIdentity:
    """What must be equal on every machine before the first row: the version and the hashes of the bundle's records."""

    diffood: str
    manifest_sha256: str
    calibration_sha256: str


@dataclass(frozen=True)
class WorkerConfig:
    """What every worker does.

    Attributes:
        bundle: Absolute; the same path on every machine.
        identity: Of the bundle on the driver's machine.
        folder: Where relative inputs begin.
        pictures: Whether to draw the denoised picture of each flagged image.
        choice: A threshold in place of the calibrated ones.
        digest: What the bundle must have here too; None where nothing was asked of the driver's.
        proxies: Variables of `connection.PROXIES`, of the driver; None for a cluster that has its own.
    """

    bundle: Path
    identity: BundleIdentity
    folder: Path
    backend: Backend
    precision: PrecisionChoice | None
    batch: int
    threads: int
    limits: ImageLimits
    decoding: DecodeOptions
    pictures: bool
    digest: str | None = None
    choice: ThresholdChoice = AS_CALIBRATED
    proxies: Mapping[str, str] | None = None


@dataclass(frozen=True)
class ReadyWorker:
    """What a worker says of itself once it has opened the bundle.

    Attributes:
        node: Name of its machine.
        process: Its process id there.
        fingerprint: Of the detector it opened.
        why: Why this backend and precision were chosen.
    """

    node: str
    process: int
    fingerprint: Fingerprint
    why: str


@dataclass(frozen=True)
class FileProbe:
    """A file as the driver reads it; a worker that reads the same bytes sees the same files.

    Attributes:
        sha256: Of its bytes, on the driver's machine.
    """

    item: Item
    sha256: str


def identify(bundle: Bundle, calibration: Calibration) -> BundleIdentity:
    """The identity of a calibrated bundle as it was opened on this machine."""
    return BundleIdentity(__version__, hash_record(bundle.manifest), calibration.sha256)


class Worker:
    """One detector on one machine. What it raises is a DiffoodError that names the machine, or a bug."""

    def __init__(self, config: WorkerConfig) -> None:
        self._config = config
        if config.proxies is not None:
            restore_proxies(config.proxies)

    def open(self) -> ReadyWorker:
        """Open the bundle. Raises BundleError if it differs from the driver's, and what opening a Detector raises."""
        with _naming_the_machine():
            config = self._config
            if config.identity.diffood != __version__:
                raise UsageError(
                    f"diffood {__version__} is installed here, the run was started with {config.identity.diffood}; "
                    "install one version on every machine."
                )
            with contextlib.suppress(OSError):  # only relative inputs need it, and their FileProbe will tell
                os.chdir(config.folder)
            self._detector = Detector.open(
                config.bundle,
                backend=config.backend,
                precision=config.precision,
                batch=config.batch,
                threads=config.threads,
                halve_batch=True,
                expect_digest=config.digest,
            )
            calibration = self._detector.calibration()
            self._require_same(identify(self._detector.bundle, calibration))
            scorer = LocalScorer(
                self._detector, calibration, config.limits, config.decoding, config.pictures, config.choice
            )
            self._rows = scorer.rows(self._feed())
            return ReadyWorker(socket.gethostname(), os.getpid(), self._detector.fingerprint, self._detector.why)

    def score(self, items: Sequence[Item], probe: FileProbe | None) -> list[tuple[Row, bytes | None]]:
        """Rows of a block with their pictures, in its order.

        Raises:
            UsageError: This machine reads other bytes than the driver for the probe's file.
        """
        with _naming_the_machine():
            if probe:
                self._require_same_files(probe)
            self._block = items
            return [(scored.row, scored.picture) for scored in itertools.islice(self._rows, len(items))]

    def _feed(self) -> Iterator[Item | Pause]:
        """Blocks as they come, in one pass, so that the processes that decode outlive a block."""
        while True:
            yield from self._block
            yield PAUSE  # nothing is drawn beyond it until all rows of the block were given

    def _require_same(self, found: BundleIdentity) -> None:
        expected = self._config.identity
        for name, mine, theirs in (
            (MANIFEST, found.manifest_sha256, expected.manifest_sha256),
            (CALIBRATION, found.calibration_sha256, expected.calibration_sha256),
        ):
            if mine != theirs:
                raise BundleError(
                    f"{self._config.bundle / name} differs from the one the run was started with (sha256 {mine[:8]}… "
                    f"here, {theirs[:8]}… there); copy the bundle to the same path on every machine."
                )

    def _require_same_files(self, probe: FileProbe) -> None:
        loaded = probe.item.load(self._detector.bundle.manifest.image, self._config.limits)
        if loaded.sha256 != probe.sha256:
            found = f"sha256 {loaded.sha256[:8]}…" if loaded.sha256 else loaded.error
            raise UsageError(
                f"{probe.item.id!r} differs from the file where the run was started ({found} here, sha256 "
                f"{probe.sha256[:8]}… there); mount the inputs at the same path on every machine."
            )


@contextlib.contextmanager
def _naming_the_machine() -> Iterator[None]:
    try:
        yield
    except DiffoodError as error:
        raise type(error)(f"On {socket.gethostname()}: {error}") from None
