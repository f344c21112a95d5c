"""The detector as `serve-batch` runs it, on a session that counts what its engine does."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from diffood.bench.compare import Meter
from diffood.runtime.backends import Backend
from diffood.runtime.bundle.bundle import CALIBRATION, Bundle, Precision, open_bundle
from diffood.runtime.bundle.calibration import Calibration, load_calibrated_fusion, load_calibration
from diffood.runtime.detector import Detector
from diffood.runtime.method.plan import Plan
from diffood.runtime.method.scoring import Array
from diffood.runtime.sessions import Classified, Session, StepInputs

Given = TypeVar("Given")
Result = TypeVar("Result")


class MeteredSession:
    """A session that adds up the time of its engine's calls, and how many rows of its steps do work."""

    def __init__(self, session: Session) -> None:
        self.session, self.meter = session, Meter()
        self.backend, self.precision = session.backend, session.precision
        self.engine_sha256, self.batch, self.threads = session.engine_sha256, session.batch, session.threads

    def classify(self, x: Array) -> Classified:
        """See Session.classify."""
        return self._timed(self.session.classify, x)

    def encode(self, x: Array) -> Array:
        """See Session.encode."""
        return self._timed(self.session.encode, x)

    def decode(self, z: Array) -> Array:
        """See Session.decode."""
        return self._timed(self.session.decode, z)

    def put(self, lane: int, x: Array) -> None:
        """See Session.put."""
        self.session.put(lane, x)

    def step(self, inputs: StepInputs) -> None:
        """See Session.step."""
        self._timed(self._step, inputs)
        self.meter.rows += self.batch
        self.meter.busy += int(np.count_nonzero(inputs.moving))

    def take(self, lane: int) -> Array:
        """See Session.take."""
        return self.session.take(lane)

    def synchronize(self) -> None:
        """See Session.synchronize."""
        self.session.synchronize()

    def _step(self, inputs: StepInputs) -> None:
        self.session.step(inputs)
        self.session.synchronize()  # otherwise a GPU's time would count where the next copy waits for it

    def _timed(self, call: Callable[[Given], Result], given: Given) -> Result:
        began = time.perf_counter()
        result = call(given)
        self.meter.seconds += time.perf_counter() - began
        return result


def open_detector(
    path: Path, plan: Plan, backend: Backend, precision: Precision, threads: int, rows: int
) -> "MeteredDetector":
    """A detector with `rows` lanes, as `serve-batch` runs it; without a calibration where none fits the plan."""
    bundle = open_bundle(path)
    calibration = calibration_of(bundle)
    holds = calibration is not None and calibration.fingerprint.plan == plan
    fusion = load_calibrated_fusion(bundle, calibration) if holds else None
    opened = Detector.load(bundle, plan, backend=backend, precision=precision, batch=rows, threads=threads)
    session = MeteredSession(opened.session)
    return MeteredDetector(Detector(bundle, plan, session, fusion), session.meter)


@dataclass(frozen=True)
class MeteredDetector:
    """A detector on a metered session; evaluations are counted in the engine, not taken from the plan."""

    detector: Detector
    meter: Meter

    def run(self, x: Array) -> int:
        """See Runner.run."""
        detector, before = self.detector, self.meter.busy
        unfitted = detector.plan.fused and detector.fusion is None
        for _ in detector.observe(enumerate(x)) if unfitted else detector.stream(enumerate(x)):
            pass
        return (2 if detector.plan.guidance > 0 else 1) * (self.meter.busy - before)


def calibration_of(bundle: Bundle) -> Calibration | None:
    """The calibration of a bundle, if it has one."""
    return load_calibration(bundle) if os.path.lexists(bundle.path / CALIBRATION) else None
