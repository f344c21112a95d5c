"""Measures how fast a plan runs: milliseconds per single image, and images per second at several batch sizes."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from typing import Any

from diffood.errors import DiffoodError
from diffood.runtime.assembly.recipe import list_stages
from diffood.runtime.backends import Backend
from diffood.runtime.bundle.bundle import Bundle, Precision
from diffood.runtime.bundle.calibration import load_calibration
from diffood.runtime.bundle.fusion import Fusion
from diffood.runtime.detector import Detector
from diffood.runtime.images.pixels import Pixels
from diffood.runtime.method.plan import CLASSIFIER, Plan
from diffood.runtime.method.witnesses.registry import classify_denoised
from diffood.runtime.sessions import SessionRequest
from diffood.runtime.sessions.backends import examine_backend
from diffood.runtime.sessions.choice import list_candidates, passed_records, speed_ratios

BATCHES = (8, 32, 64, 128)
ALONE = 15  # images timed one by one; their median is within a few percent on an idle machine
WARM_UP = 3
FEWEST_TIMED, MOST_TIMED = 64, 256  # images of one batch size, four batches where that lies between


@dataclass(frozen=True)
class EngineOption:
    """A precision on a backend.

    Attributes:
        precision: Of the graphs.
        backend: What runs them.
        gated: Whether it passed `diffood verify` against the bundle's calibration.
    """

    precision: Precision
    backend: Backend
    gated: bool

    def __str__(self) -> str:
        return f"{self.precision} on {self.backend}"


@dataclass(frozen=True)
class Speed:
    """Speed of a plan on an engine.

    Attributes:
        engine: What ran it.
        images_per_second: By batch size.
        latency: Median milliseconds of one image at batch 1; None where it could not be measured.
        error: Why it could not be measured.
    """

    engine: EngineOption
    images_per_second: dict[int, float]
    latency: float | None
    error: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def list_engines(bundle: Bundle, plan: Plan) -> list[EngineOption]:
    """Every precision and backend that runs a plan on this machine, best backend first."""
    usable = list_candidates(bundle, None, "auto", "auto", 1, plan).usable
    passed = _passed(bundle)
    return [
        EngineOption(found.precision, found.backend, (found.backend, found.precision) in passed) for found in usable
    ]


def fastest_gated(bundle: Bundle, plan: Plan) -> EngineOption:
    """The fastest engine for a plan that passed `diffood verify`; FP32 where none did."""
    engines, passed = list_engines(bundle, plan), _passed(bundle)
    gated = [engine for engine in engines if engine.gated]
    if gated:
        return max(gated, key=lambda engine: passed[engine.backend, engine.precision])
    return next(engine for engine in engines if engine.precision == "fp32")


def _passed(bundle: Bundle) -> dict[tuple[Backend, Precision], float]:
    """Relative speed, to the calibrated engine, of each that passed against the bundle's current calibration."""
    try:
        calibration = load_calibration(bundle)
    except DiffoodError:
        return {}
    records = passed_records(bundle, calibration)
    return speed_ratios(record for record in records if record.calibration_sha256 == calibration.sha256)


class LatencyModel:
    """Milliseconds of one image at batch 1: those of the stages that it goes through, each measured by itself.

    A stage is one call of the engine. What is measured classifies the image too, which a later stage does not: so a
    classification is measured as well, and taken off.
    """

    def __init__(self, bundle: Bundle, engine: EngineOption, images: Sequence[Pixels], threads: int) -> None:
        self._bundle, self._engine, self._images, self._threads = bundle, engine, images, threads
        self._measured: dict[Plan, float] = {}

    def cost(self, plan: Plan, shares: Mapping[int, float]) -> float:
        """Milliseconds on average, where `shares` of the images end after each number of repeats."""
        first, *later = list_stages(plan)
        total = self._stage(plan, first.repeats)
        for stage in later:
            reached = sum(share for repeats, share in shares.items() if repeats > stage.first)
            total += reached * max(0.0, self._stage(plan, stage.repeats) - self._stage(plan, 0))
        return total

    def _stage(self, plan: Plan, repeats: int) -> float:
        """Of a stage that classifies the image and does so many repeats."""
        alone = CLASSIFIER.plain
        if repeats:  # the other witnesses cost nothing beside what these need
            witness = "jump" if classify_denoised(plan.witnesses) else "reconstruction"
            alone = plan.changed({"repeats": repeats, "stages": (), "witnesses": (witness,)})
        if alone not in self._measured:
            with _load(self._bundle, alone, self._engine, 1, self._threads) as detector:
                self._measured[alone] = _median_ms(lambda image: list(detector.observe([(0, image)])), self._images)
        return self._measured[alone]


def time_plan(
    bundle: Bundle, plan: Plan, fusion: Fusion | None, engine: EngineOption, images: Sequence[Pixels], threads: int
) -> Speed:
    """Time real images at each of BATCHES that the engine takes, and one by one.

    An engine that cannot be opened gives an error.
    """
    rates: dict[int, float] = {}
    try:
        for batch in BATCHES:
            request = SessionRequest(bundle, plan, engine.precision, batch, threads)
            if not examine_backend(engine.backend, request).usable:
                continue  # an engine built for other sizes
            detector = _load(bundle, plan, engine, batch, threads, fusion)
            count = min(MOST_TIMED, max(FEWEST_TIMED, 4 * batch))
            _run(detector, list(islice(cycle(images), batch)))
            began = time.perf_counter()
            _run(detector, list(islice(cycle(images), count)))
            rates[batch] = count / (time.perf_counter() - began)
        detector = _load(bundle, plan, engine, 1, threads, fusion)
        latency = _median_ms(lambda image: _run(detector, [image]), images)
    except DiffoodError as error:
        return Speed(engine, rates, None, str(error))
    return Speed(engine, rates, latency)


def _load(
    bundle: Bundle, plan: Plan, engine: EngineOption, batch: int, threads: int, fusion: Fusion | None = None
) -> Detector:
    return Detector.load(
        bundle, plan, backend=engine.backend, precision=engine.precision, batch=batch, threads=threads, fusion=fusion
    )


def _run(detector: Detector, images: Sequence[Pixels]) -> None:
    for _ in detector.stream(enumerate(images)):
        pass


def _median_ms(work: Callable[[Pixels], object], images: Sequence[Pixels]) -> float:
    """Median milliseconds of ALONE images one by one, after WARM_UP that do not count."""
    for image in islice(cycle(images), WARM_UP):
        work(image)
    seconds = []
    for image in islice(cycle(images), ALONE):
        began = time.perf_counter()
        work(image)
        seconds.append(time.perf_counter() - began)
    return 1000 * statistics.median(seconds)
