"""What serve-batch scores with: a detector of this machine, or workers on a cluster."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffood.cli.options import shared as options
from diffood.runtime.bundle.bundle import Bundle
from diffood.runtime.bundle.calibration import Fingerprint
from diffood.runtime.detector import Detector
from diffood.runtime.images.decode import Limits
from diffood.runtime.inputs.decoding import Decoding, default_processes
from diffood.runtime.sessions.choice import BackendChoice, PrecisionChoice

if TYPE_CHECKING:
    from diffood.serving.batch import Scorer


@dataclass(frozen=True)
class Wanted:
    """What the options ask for.

    decoders None: as many as suit the place; decode_timeout: seconds for one image; pictures: of flagged images.
    """

    backend: BackendChoice
    precision: PrecisionChoice | None
    batch: int
    threads: int
    limits: Limits
    decoders: int | None
    decode_timeout: float
    pictures: bool


@dataclass(frozen=True)
class Opened:
    """A scorer with all that its scores depend on, and what it is in one line. threads: as Session.threads."""

    scorer: "Scorer"
    bundle: Bundle
    fingerprint: Fingerprint
    engine: str
    threads: int


@contextlib.contextmanager
def open_scorer(bundle: Path, cluster: str | None, wanted: Wanted) -> Iterator[Opened]:
    """Open a calibrated bundle here, or on the cluster of an address."""
    from diffood.serving.batch import Here
    from diffood.serving.cluster.cluster import DECODERS_A_WORKER, open_cluster

    if cluster is None:
        decoding = Decoding(default_processes() if wanted.decoders is None else wanted.decoders, wanted.decode_timeout)
        detector = Detector.open(
            bundle, backend=wanted.backend, precision=wanted.precision, batch=wanted.batch, threads=wanted.threads
        )
        detector.spares_memory = True
        scorer = Here(detector, detector.calibration(), wanted.limits, decoding, wanted.pictures)
        engine, threads = options.describe_engine(detector), detector.session.threads
        yield Opened(scorer, detector.bundle, detector.fingerprint, engine, threads)
        return
    decoding = Decoding(DECODERS_A_WORKER if wanted.decoders is None else wanted.decoders, wanted.decode_timeout)
    with open_cluster(
        bundle,
        cluster,
        backend=wanted.backend,
        precision=wanted.precision,
        limits=wanted.limits,
        decoding=decoding,
        pictures=wanted.pictures,
        batch=wanted.batch,
        threads=wanted.threads,
    ) as workers:
        yield Opened(workers, workers.bundle, workers.fingerprint, workers.engine, workers.threads)
