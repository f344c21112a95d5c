"""The detector as `serve-batch` runs it, on a session that counts what its engine does."""

import time
from dataclasses import dataclass
from pathlib import Path

from diffood.bench.compare import Meter
from diffood.runtime.assembly.recipe import list_stages
from diffood.runtime.assembly.stage import IMAGE
from diffood.runtime.backends import Backend
from diffood.runtime.bundle.bundle import Bundle, Precision, open_bundle
from diffood.runtime.bundle.calibration import find_calibration, load_calibrated_fusion
from diffood.runtime.detector import Detector
from diffood.runtime.images.pixels import Pixels
from diffood.runtime.method.plan import Plan
from diffood.runtime.sessions import Session, StageTensors


class MeteredSession:
    """A session that adds up the time of its runs, and the UNet evaluations of the stages that ran."""

    def __init__(self, session: Session, bundle: Bundle, plan: Plan) -> None:
        """Args: what it runs on; the bundle and the plan that it was opened for."""
        self.session, self.meter = session, Meter()
        self.backend, self.precision = session.backend, session.precision
        self.engine_sha256, self.batch, self.threads = session.engine_sha256, session.batch, session.threads
        tables = bundle.tables(plan)
        self._each = [plan.evaluations(tables, stage.repeats) for stage in list_stages(plan)]

    def run(self, stage: int, feeds: StageTensors) -> StageTensors:
        """See Session.run."""
        began = time.perf_counter()
        found = self.session.run(stage, feeds)
        self.meter.seconds += time.perf_counter() - began
        self.meter.evaluations += self._each[stage] * len(feeds[IMAGE])
        return found


def open_detector(
    path: Path, plan: Plan, backend: Backend, precision: Precision, threads: int, batch: int
) -> "MeteredDetector":
    """A detector as `serve-batch` runs it; without a calibration where none fits the plan."""
    bundle = open_bundle(path)
    calibration = find_calibration(bundle)
    holds = calibration is not None and calibration.fingerprint.plan == plan
    fusion = load_calibrated_fusion(bundle, calibration) if holds else None
    opened = Detector.load(bundle, plan, backend=backend, precision=precision, batch=batch, threads=threads)
    session = MeteredSession(opened.session, bundle, plan)
    return MeteredDetector(Detector(bundle, plan, session, fusion), session.meter)


@dataclass(frozen=True)
class MeteredDetector:
    """A detector on a metered session; evaluations are those of the stages that ran."""

    detector: Detector
    meter: Meter

    def run(self, pixels: Pixels) -> int:
        """See Runner.run."""
        detector, before = self.detector, self.meter.evaluations
        unfitted = detector.plan.fused and detector.fusion is None
        for _ in detector.observe(enumerate(pixels)) if unfitted else detector.stream(enumerate(pixels)):
            pass
        return self.meter.evaluations - before
