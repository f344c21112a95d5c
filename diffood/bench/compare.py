"""Times contenders in rounds, in turns, on the same images. Knows no engine and no model."""

import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from diffood.bench.machine import MachineInfo, describe_machine, load_average, peak_resident_bytes
from diffood.errors import DiffoodError, UsageError
from diffood.runtime.images.pixels import Pixels
from diffood.runtime.progress import Progress

ROUNDS = 7
WHY_UNET = "bench times ways to denoise"  # of a bundle that has none
LATENCY_SHARE = 1 / 3  # of a contender's seconds, for one image at a time
TRIALS = 3  # single images that each batch is tried on, before the fastest is timed
MOST_SINGLES = 200  # single images per round
FEWEST_FOR_P95, FEWEST_FOR_P99 = 20, 100  # below these a quantile would only be the slowest image
SPREAD = (0.1, 0.9)  # quantiles over rounds that are shown with a median

Clock = Callable[[], float]


@dataclass
class Meter:
    """Totals over an engine's calls.

    Attributes:
        seconds: Inside the calls.
        evaluations: Of the UNet, in calls that were made.
    """

    seconds: float = 0.0
    evaluations: int = 0


class Runner(Protocol):
    """An open contender."""

    @property
    def meter(self) -> Meter | None:
        """Totals while it runs; None where engine and loop cannot be told apart."""

    def run(self, pixels: Pixels) -> int:
        """Score images uint8 [N, C, H, W]; returns the UNet evaluations spent."""


@dataclass(frozen=True)
class Contender:
    """One implementation to time. It must pickle: memory is measured in a process of its own.

    Attributes:
        name: Shown in tables and charts.
        open: Makes what runs, for a batch.
        batch: Where many images wait: images that our engine works on at once; rows of a loop's UNet, of which an image
            takes as many as the plan has repeats.
        chunk: It is given multiples of this many images.
        single_batches: Batches worth trying for one image alone; the fastest is timed.
        note: What a reader has to know about it.
        gpu: Whether it runs on a GPU.
    """

    name: str
    open: Callable[[int], Runner]
    batch: int
    chunk: int
    single_batches: tuple[int, ...]
    note: str = ""
    gpu: bool = False


@dataclass(frozen=True)
class Budget:
    """Seconds for each contender in all, and the rounds they are spent in; a round takes at least one chunk."""

    seconds: float
    rounds: int = ROUNDS


@dataclass(frozen=True)
class Spread:
    """A median over rounds, with the quantiles of SPREAD."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Latency:
    """One image at a time.

    Attributes:
        batch: See Contender.batch.
        count: Images timed.
        p50: Milliseconds.
        p95: Milliseconds; None for too few images.
        p99: Milliseconds; None for too few images.
        ratio: How many times faster than the first contender, by each round's median.
    """

    batch: int
    count: int
    p50: float
    p95: float | None
    p99: float | None
    ratio: Spread


@dataclass(frozen=True)
class ContenderResult:
    """What was measured of one contender.

    Attributes:
        name: The contender's.
        note: The contender's.
        images: Timed in all rounds, many at once.
        images_per_second: Many at once.
        ratio: Images per second over the first contender's, round by round.
        evaluations: UNet evaluations per image.
        engine_share: Share of that time inside engine calls.
        latency: One image at a time; None where that cannot run.
        peak_memory: Bytes resident in a process that runs this contender alone on one chunk.
    """

    name: str
    note: str
    images: int
    images_per_second: Spread
    ratio: Spread
    evaluations: float
    engine_share: float | None
    latency: Latency | None
    peak_memory: int | None


@dataclass(frozen=True)
class Comparison:
    """Results of all contenders.

    Attributes:
        rows: In the contenders' order.
        skipped: Those that could not run, as (name, reason).
        rounds: How many.
        machine: Where it was measured.
        load_before: Load average over one minute.
        load_after: The same; the run itself is in it.
    """

    rows: tuple[ContenderResult, ...]
    skipped: tuple[tuple[str, str], ...]
    rounds: int
    machine: MachineInfo
    load_before: float | None
    load_after: float | None

    def as_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)


@dataclass
class _Running:
    """A contender while it is timed; lists have an entry for each round."""

    contender: Contender
    runner: Runner
    size: int  # images per round
    seconds: list[float] = field(default_factory=list)
    inside: float = 0.0
    evaluations: int = 0
    single: Runner | None = None
    single_batch: int = 0
    singles: int = 1  # images per round, one at a time
    latencies: list[list[float]] = field(default_factory=list)


def compare(
    contenders: Sequence[Contender],
    images: Pixels,
    budget: Budget,
    *,
    memory: bool = True,
    progress: Progress | None = None,
    clock: Clock = time.perf_counter,
) -> Comparison:
    """Time every contender.

    Every round runs all contenders, each round beginning with another one, so that a change of the machine's load
    affects all alike; a slow contender takes fewer images per round. One that cannot be opened (DiffoodError) is
    skipped.

    Args:
        contenders: The first is what ratios refer to.
        images: uint8 [N, C, H, W], taken in turn.
        budget: Of each contender.
        memory: Whether to measure peak memory.
        progress: Called with 1 after each round of each contender, twice per round.
        clock: Seconds; another one for tests.

    Raises:
        UsageError: A contender raised it.
    """
    before, running, skipped = load_average(), [], []
    for contender in contenders:
        try:
            running.append(_open(contender, images, budget, clock))
        except UsageError:
            raise
        except DiffoodError as error:
            skipped.append((contender.name, str(error)))
    for turn in turns(len(running), budget.rounds):
        for index in turn:
            _run_round(running[index], images, clock)
            _report(progress)
    for contestant in running:
        _open_single(contestant, images, budget, clock)
    for turn in turns(len(running), budget.rounds):
        for index in turn:
            _run_singles(running[index], images, clock)
            _report(progress)
    after = load_average()
    peaks = [measure_memory(contestant.contender, images) if memory else None for contestant in running]
    rows = [_row(contestant, running[0], peak) for contestant, peak in zip(running, peaks, strict=True)]
    return Comparison(tuple(rows), tuple(skipped), budget.rounds, describe_machine(), before, after)


def turns(count: int, rounds: int) -> list[list[int]]:
    """The order of `count` contenders in each round; each round begins with the next one."""
    return [[(begin + place) % count for place in range(count)] for begin in range(rounds)] if count else []


def take(images: Pixels, start: int, count: int) -> Pixels:
    """`count` images from index `start` on, from the beginning again after the last."""
    return np.asarray(images[np.arange(start, start + count) % len(images)])


def _open(contender: Contender, images: Pixels, budget: Budget, clock: Clock) -> _Running:
    """Open a contender, and measure how many images fill a round.

    Two chunks are run that are not counted (one where it fills a round): the first is slower, and would make the
    rounds of a fast contender so short that their overhead dominates.
    """
    runner = contender.open(contender.batch)
    sample, round_seconds = take(images, 0, contender.chunk), budget.seconds * (1 - LATENCY_SHARE) / budget.rounds
    for _ in range(2):
        began = clock()
        runner.run(sample)
        seconds = max(clock() - began, 1e-9)
        if seconds > round_seconds:
            break
    return _Running(contender, runner, max(1, int(round_seconds / seconds)) * contender.chunk)


def _run_round(running: _Running, images: Pixels, clock: Clock) -> None:
    pixels = take(images, len(running.seconds) * running.contender.chunk, running.size)
    meter = running.runner.meter or Meter()
    inside = meter.seconds
    began = clock()
    running.evaluations += running.runner.run(pixels)
    running.seconds.append(clock() - began)
    running.inside += meter.seconds - inside


def _open_single(running: _Running, images: Pixels, budget: Budget, clock: Clock) -> None:
    """Open with each batch worth trying for one image, and keep the fastest."""
    best = float("inf")
    for batch in running.contender.single_batches:
        try:
            runner = running.contender.open(batch)
        except DiffoodError:  # an engine built for other sizes
            continue
        runner.run(take(images, 0, 1))
        seconds = float(np.median([_time_one(runner, images, place, clock) for place in range(TRIALS)]))
        if seconds < best:
            best, running.single, running.single_batch = seconds, runner, batch
    if running.single:
        share = budget.seconds * LATENCY_SHARE / budget.rounds
        running.singles = int(np.clip(share / max(best, 1e-9), 1, MOST_SINGLES))


def _run_singles(running: _Running, images: Pixels, clock: Clock) -> None:
    if running.single:
        first = len(running.latencies) * MOST_SINGLES
        places = range(first, first + running.singles)
        running.latencies.append([_time_one(running.single, images, place, clock) for place in places])


def _time_one(runner: Runner, images: Pixels, place: int, clock: Clock) -> float:
    pixels = take(images, place, 1)
    began = clock()
    runner.run(pixels)
    return clock() - began


def _row(running: _Running, first: _Running, peak: int | None) -> ContenderResult:
    rates, reference = _rates(running), _rates(first)
    total = running.size * len(rates)
    has_meter = running.runner.meter is not None
    return ContenderResult(
        name=running.contender.name,
        note=running.contender.note,
        images=total,
        images_per_second=spread(rates),
        ratio=spread(rates / reference),
        evaluations=running.evaluations / total,
        engine_share=running.inside / sum(running.seconds) if has_meter else None,
        latency=_latency(running, first),
        peak_memory=peak,
    )


def _rates(running: _Running) -> npt.NDArray[np.float64]:
    return running.size / np.array(running.seconds)


def _latency(running: _Running, first: _Running) -> Latency | None:
    if not running.latencies or not first.latencies:
        return None
    own, reference = (np.array([np.median(one) for one in found.latencies]) for found in (running, first))
    every = 1e3 * np.concatenate([np.array(one) for one in running.latencies])
    return Latency(
        batch=running.single_batch,
        count=len(every),
        p50=float(np.quantile(every, 0.5)),
        p95=float(np.quantile(every, 0.95)) if len(every) >= FEWEST_FOR_P95 else None,
        p99=float(np.quantile(every, 0.99)) if len(every) >= FEWEST_FOR_P99 else None,
        ratio=spread(reference / own),
    )


def readable(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def spread(values: npt.NDArray[np.float64]) -> Spread:
    """Median and quantiles of one value per round."""
    low, middle, high = np.quantile(values, (SPREAD[0], 0.5, SPREAD[1]))
    return Spread(float(middle), float(low), float(high))


def measure_memory(contender: Contender, images: Pixels) -> int | None:
    """Peak resident bytes of a fresh process that opens this contender alone and runs one chunk; None if it died.

    The process is fresh because a peak never falls: in one process every contender would be charged with what ran
    before it, and shared libraries would be counted for the first one only. Interpreter and libraries count.
    """
    pixels = take(images, 0, contender.chunk)
    spawned = multiprocessing.get_context("spawn")  # forked, it would inherit this process's memory
    with ProcessPoolExecutor(1, mp_context=spawned) as pool:
        try:
            return pool.submit(_run_alone, contender, pixels).result()
        except BrokenProcessPool:
            return None


def _run_alone(contender: Contender, pixels: Pixels) -> int | None:
    contender.open(contender.batch).run(pixels)
    return peak_resident_bytes()


def _report(progress: Progress | None) -> None:
    if progress:
        progress(1)
