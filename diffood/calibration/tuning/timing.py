"""Measures how fast a plan runs: milliseconds per single image, and images per second at several batch sizes."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from typing import Any

from diffood.errors import DiffoodError
from diffood.runtime.backends import Backend
from diffood.runtime.bundle.bundle import Bundle, Precision
from diffood.runtime.bundle.calibration import load_calibration
from diffood.runtime.bundle.fusion import Fusion
from diffood.runtime.bundle.parity import calibration_sha256
from diffood.runtime.detector import Detector
from diffood.runtime.method.plan import Plan
from diffood.runtime.method.scoring import Array
from diffood.runtime.method.witnesses.registry import classify_denoised
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


def list_engines(bundle: Bundle, batch: int) -> list[EngineOption]:
    """Every precision and backend that runs on this machine, best backend first."""
    usable = list_candidates(bundle, None, "auto", "auto", batch).usable
    passed = _passed(bundle)
    return [
        EngineOption(found.precision, found.backend, (found.backend, found.precision) in passed) for found in usable
    ]


def fastest_gated(bundle: Bundle) -> EngineOption:
    """The fastest engine that passed `diffood verify`; FP32 where none did."""
    engines, passed = list_engines(bundle, 1), _passed(bundle)
    gated = [engine for engine in engines if engine.gated]
    if gated:
        return max(gated, key=lambda engine: passed[engine.backend, engine.precision])
    return next(engine for engine in engines if engine.precision == "fp32")


def _passed(bundle: Bundle) -> dict[tuple[Backend, Precision], float]:
    """Relative speed, to the calibrated engine, of each that passed against the bundle's current calibration."""
    try:
        calibration, digest = load_calibration(bundle), calibration_sha256(bundle)
    except DiffoodError:
        return {}
    records = passed_records(bundle, calibration)
    return speed_ratios(record for record in records if record.calibration_sha256 == digest)


class LatencyModel:
    """Milliseconds of one image at batch 1, from a measured classification and a measured repeat of each denoising.

    Where the bundle has an autoencoder, also from one encoding per image and a decoding.

    Every repeat costs the same, an image that ends early saves the later ones, and each denoised image costs a
    classification where a witness needs it: so one timing per denoising gives the cost of all its plans.
    """

    def __init__(self, bundle: Bundle, engine: EngineOption, images: Sequence[Array], threads: int) -> None:
        self._bundle, self._engine, self._images, self._threads = bundle, engine, images, threads
        self._of_repeat: dict[Plan, float] = {}
        self._classify = self._encode = self._decode = 0.0  # measured with the first denoising

    def cost(self, plan: Plan, shares: Mapping[int, float]) -> float:
        """Milliseconds on average, where `shares` of the images end after each number of repeats."""
        repeat = self._repeat(plan.changed({"repeats": 1, "stages": (), "witnesses": ("reconstruction",)}))
        if classify_denoised(plan.witnesses):
            own_origin = plan.grid(self._bundle.alpha_bar).origin_scale()[1] > 0  # classified for each repeat too
            repeat += self._classify * (len(plan.start_times) + own_origin) + self._decode * own_origin
        return self._classify + self._encode + repeat * sum(repeats * share for repeats, share in shares.items())

    def _repeat(self, once: Plan) -> float:
        if once not in self._of_repeat:
            detector = _load(self._bundle, once, self._engine, 1, self._threads)
            if not self._classify:
                self._measure_once(detector)
            whole = _median_ms(lambda x: list(detector.observe([(0, x)])), self._images)
            self._of_repeat[once] = max(0.0, whole - self._classify - self._encode)
        return self._of_repeat[once]

    def _measure_once(self, detector: Detector) -> None:
        """Measure the parts that do not depend on the denoising."""
        session = detector.session
        self._classify = _median_ms(lambda x: session.classify(x[None]), self._images)
        if self._bundle.manifest.latent:
            self._encode = _median_ms(lambda x: session.encode(x[None]), self._images)
            latents = [session.encode(x[None])[0] for x in self._images[:1]]
            self._decode = _median_ms(lambda z: session.decode(z[None]), latents)


def time_plan(
    bundle: Bundle, plan: Plan, fusion: Fusion | None, engine: EngineOption, images: Sequence[Array], threads: int
) -> Speed:
    """Time real images at each of BATCHES that the engine takes, and one by one.

    An engine that cannot be opened gives an error.
    """
    rates: dict[int, float] = {}
    try:
        for batch in BATCHES:
            if not examine_backend(engine.backend, bundle, engine.precision, batch).usable:
                continue  # an engine built for other sizes
            detector = _load(bundle, plan, engine, batch, threads, fusion)
            count = min(MOST_TIMED, max(FEWEST_TIMED, 4 * batch))
            _run(detector, list(islice(cycle(images), batch)))
            began = time.perf_counter()
            _run(detector, list(islice(cycle(images), count)))
            rates[batch] = count / (time.perf_counter() - began)
        detector = _load(bundle, plan, engine, 1, threads, fusion)
        latency = _median_ms(lambda x: _run(detector, [x]), images)
    except DiffoodError as error:
        return Speed(engine, rates, None, str(error))
    return Speed(engine, rates, latency)


def _load(
    bundle: Bundle, plan: Plan, engine: EngineOption, batch: int, threads: int, fusion: Fusion | None = None
) -> Detector:
    return Detector.load(
        bundle, plan, backend=engine.backend, precision=engine.precision, batch=batch, threads=threads, fusion=fusion
    )


def _run(detector: Detector, images: Sequence[Array]) -> None:
    for _ in detector.stream(enumerate(images)):
        pass


def _median_ms(work: Callable[[Array], object], images: Sequence[Array]) -> float:
    """Median milliseconds of ALONE images one by one, after WARM_UP that do not count."""
    for x in islice(cycle(images), WARM_UP):
        work(x)
    seconds = []
    for x in islice(cycle(images), ALONE):
        began = time.perf_counter()
        work(x)
        seconds.append(time.perf_counter() - began)
    return 1000 * statistics.median(seconds)
