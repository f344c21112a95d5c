"""Opens what scores the images of a run: a detector of this process, or workers on a cluster."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from diffood.runtime.bundle.bundle import Bundle
from diffood.runtime.bundle.calibration import Calibration, Fingerprint
from diffood.runtime.certificate import Certificate, certificate_of
from diffood.runtime.detector import Detector
from diffood.runtime.inputs.decoding import DecodeOptions, default_processes
from diffood.runtime.sessions.choice import describe_engine
from diffood.serving.cluster.open import open_cluster
from diffood.serving.local import LocalScorer, Scorer
from diffood.serving.request import ScorerRequest


@dataclass(frozen=True)
class OpenedScorer:
    """A scorer with everything that its scores depend on.

    Attributes:
        calibration: What its verdicts follow from.
        certificate: What holds for its verdicts.
        engine: One line that says what runs, and why.
        threads: Threads of each engine; 0 on a GPU.
    """

    scorer: Scorer
    bundle: Bundle
    calibration: Calibration
    fingerprint: Fingerprint
    certificate: Certificate
    engine: str
    threads: int


@contextlib.contextmanager
def open_scorer(request: ScorerRequest) -> Iterator[OpenedScorer]:
    """Open a calibrated bundle in this process or on a cluster. Raises as `Detector.open` and `open_cluster` do."""
    if request.cluster is not None:
        with open_cluster(request.cluster, request) as cluster:
            certificate = certificate_of(cluster.bundle, cluster.calibration, request.choice)
            yield OpenedScorer(
                cluster,
                cluster.bundle,
                cluster.calibration,
                cluster.fingerprint,
                certificate,
                cluster.engine,
                cluster.threads,
            )
        return
    detector = Detector.open(
        request.bundle,
        backend=request.backend,
        precision=request.precision,
        batch=request.batch,
        threads=request.threads,
        halve_batch=True,
    )
    decoders = default_processes() if request.decoders is None else request.decoders
    decoding = DecodeOptions(decoders, request.decode_timeout)
    calibration = detector.calibration()
    scorer = LocalScorer(detector, calibration, request.limits, decoding, request.pictures, request.choice)
    engine = describe_engine(scorer.precision, scorer.backend, detector.why)
    certificate = certificate_of(detector.bundle, calibration, request.choice)
    threads = detector.session.threads
    yield OpenedScorer(scorer, detector.bundle, calibration, detector.fingerprint, certificate, engine, threads)
