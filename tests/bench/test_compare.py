"""The arithmetic of a comparison: turns, ratios of the same round, what is counted. No engine is timed here."""

import os
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from matplotlib import image

from diffood.bench.compare import (
    MOST_SINGLES,
    Budget,
    Comparison,
    Contender,
    Meter,
    Pixels,
    compare,
    measure_memory,
    readable,
    turns,
)
from diffood.bench.machine import describe_machine, peak_resident_bytes
from diffood.cli.text.comparison import describe_comparison
from diffood.cli.text.tables import WIDTH
from diffood.errors import BundleError, UsageError
from diffood.report.charts.bench_comparison import draw_comparison

IMAGES = np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1)
MEGABYTE = 10**6


@dataclass
class World:
    """A clock that only work moves, a load that slows all work, and what ran: (name, images, first image)."""

    now: float = 0.0
    load: float = 1.0
    log: list[tuple[str, int, float]] = field(default_factory=list)


@dataclass
class Worker:
    """Takes `seconds` for an image and spends `each` evaluations on it, half of the time inside its engine."""

    world: World
    name: str
    seconds: float
    each: int
    meter: Meter | None

    def run(self, pixels: Pixels) -> int:
        took = len(pixels) * self.seconds * self.world.load
        self.world.now += took
        self.world.log.append((self.name, len(pixels), int(pixels[0, 0, 0, 0])))
        if self.meter:
            self.meter.seconds += took / 2
        return self.each * len(pixels)


def make(
    world: World, name: str, seconds: float, *, chunk: int = 2, metered: bool = True, single: tuple[int, ...] = (1,)
) -> Contender:
    def open_worker(batch: int) -> Worker:
        # one image alone is served in 1 / batch of the time, as by a batch of its repeats
        taken = seconds / batch if batch < 8 else seconds
        return Worker(world, name, taken, 12, Meter() if metered else None)

    return Contender(name, open_worker, batch=8, chunk=chunk, single_batches=single)


def run(world: World, contenders: list[Contender], seconds: float = 60.0, rounds: int = 3) -> Comparison:
    return compare(contenders, IMAGES, Budget(seconds, rounds), memory=False, clock=lambda: world.now)


def test_every_round_runs_all_and_begins_with_another() -> None:
    assert turns(3, 4) == [[0, 1, 2], [1, 2, 0], [2, 0, 1], [0, 1, 2]]
    assert turns(0, 4) == []
    world = World()
    run(world, [make(world, "a", 1.0, chunk=20), make(world, "b", 1.0, chunk=20)])
    many = [name for name, count, _ in world.log if count == 20]
    assert many == ["a", "b", *"ab", *"ba", *"ab"]  # opened in order, then three rounds


def test_a_slow_contender_takes_fewer_images_and_at_least_a_chunk() -> None:
    world = World()
    run(world, [make(world, "slow", 100.0), make(world, "fast", 0.5)], seconds=60, rounds=4)
    # two thirds of 60 s in 4 rounds are 10 s
    assert {count for name, count, _ in world.log if name == "slow" and count > 1} == {2}
    assert [count for name, count, _ in world.log if name == "fast" and count > 1] == [2, 2, 20, 20, 20, 20]


def test_all_start_a_round_at_the_same_image_and_go_in_a_circle() -> None:
    world = World()
    run(world, [make(world, "a", 1.0), make(world, "b", 0.5)], rounds=7)
    starts = {name: [first for who, count, first in world.log if who == name and count > 1][-7:] for name in "ab"}
    assert starts["a"] == starts["b"] == [0, 2, 4, 6, 8, 0, 2]


class Ramp(World):
    """A machine that gets slower with every piece of work."""

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if name == "now":
            super().__setattr__("load", self.load * 1.05)


def test_a_ratio_is_of_the_same_round() -> None:
    world = World()
    first, second = make(world, "a", 1.0), make(world, "b", 0.25)
    found = run(world, [first, second])
    assert found.rows[0].ratio.median == 1
    assert found.rows[0].images_per_second.median == pytest.approx(1)
    assert found.rows[1].ratio.median == pytest.approx(4)
    assert found.rows[1].images_per_second.median == pytest.approx(4)
    ramp = Ramp()
    steep = run(ramp, [make(ramp, "a", 1.0), make(ramp, "b", 0.25)], rounds=8)
    rate, ratio = steep.rows[1].images_per_second, steep.rows[1].ratio
    assert rate.high / rate.low > 1.5  # the rates fall all the way, as the machine slows
    assert ratio.high / ratio.low < 1.25  # their ratios hardly: both were slowed
    assert ratio.median == pytest.approx(4, rel=0.06)


def test_what_is_counted_comes_from_the_timed_rounds() -> None:
    world = World()
    found = run(world, [make(world, "a", 1.0), make(world, "b", 1.0, metered=False)])
    metered, bare = found.rows
    assert (metered.evaluations, bare.evaluations) == (12, 12)
    assert metered.engine_share == pytest.approx(0.5)
    assert bare.engine_share is None
    assert metered.images == 3 * 12  # 60 s · 2/3 in 3 rounds at an image a second, in twos


def test_one_image_alone_is_timed_with_the_batch_that_serves_it_fastest() -> None:
    world = World()
    found = run(world, [make(world, "a", 1.0), make(world, "b", 0.001, single=(1, 4))], seconds=90, rounds=3)
    slow, fast = found.rows[0].latency, found.rows[1].latency
    assert slow is not None
    assert fast is not None
    assert (slow.batch, fast.batch) == (1, 4)
    assert (slow.count, fast.count) == (30, 3 * MOST_SINGLES)
    assert slow.p50 == pytest.approx(1000)
    assert slow.p95 is not None
    assert slow.p99 is None  # of 30 images, that would be the slowest one
    assert fast.p99 == pytest.approx(0.25)
    assert fast.ratio.median == pytest.approx(4000)


def test_one_that_cannot_be_opened_is_left_out_and_the_ratios_go_to_the_next() -> None:
    world = World()

    def refuse(batch: int) -> Worker:
        raise BundleError(f"no engine of {batch} rows")

    broken = Contender("broken", refuse, batch=8, chunk=2, single_batches=(1,))
    found = run(world, [broken, make(world, "a", 1.0)])
    assert found.skipped == (("broken", "no engine of 8 rows"),)
    assert [(row.name, row.ratio.median) for row in found.rows] == [("a", 1.0)]


def test_a_wrong_option_is_the_users_to_hear_of() -> None:
    def refuse(batch: int) -> Worker:
        raise UsageError(f"A batch of {batch} images is not possible.")

    with pytest.raises(UsageError, match="8 images"):
        run(World(), [Contender("a", refuse, batch=8, chunk=2, single_batches=(1,))])


@dataclass(frozen=True)
class Hoarder:
    """Holds so many bytes, and touches them all."""

    size: int
    meter: None = None

    def run(self, pixels: Pixels) -> int:
        return int(np.ones(self.size, np.uint8).sum())


def open_hoarder(size: int, batch: int) -> Hoarder:
    return Hoarder(size)


def open_and_die(batch: int) -> Hoarder:
    os._exit(1)


def hoarder(size: int) -> Contender:
    return Contender(str(size), partial(open_hoarder, size), batch=1, chunk=1, single_batches=(1,))


def test_memory_is_of_a_process_that_runs_one_contender_alone() -> None:
    large = measure_memory(hoarder(300 * MEGABYTE), IMAGES)
    small = measure_memory(hoarder(MEGABYTE), IMAGES)  # after the large one, which must not count
    assert large is not None
    assert small is not None
    assert 250 * MEGABYTE < large - small < 350 * MEGABYTE
    assert small < (peak_resident_bytes() or 0)


def test_memory_of_a_process_that_died_is_unknown() -> None:
    assert measure_memory(Contender("a", open_and_die, batch=1, chunk=1, single_batches=(1,)), IMAGES) is None


def test_a_number_has_three_digits_and_no_exponent() -> None:
    values = {287.9: "288", 4234.7: "4235", 28.79: "28.8", 1.0: "1", 0.00123: "0.00123"}
    assert {value: readable(value) for value in values} == values


def test_the_table_and_the_chart_show_every_row(tmp_path: Path) -> None:
    world = World()
    found = run(world, [make(world, "the first", 1.0), make(world, "diffood, b", 0.001)])
    lines = describe_comparison(found)
    assert max(map(len, lines)) <= WIDTH
    assert any(line.startswith("the first ") and " 1 (1-1) " in line for line in lines)
    assert any(line.startswith("diffood, b ") and " 1000 (1000-1000) " in line for line in lines)
    assert describe_machine().processor in lines[0]
    draw_comparison(found, tmp_path / "a.png")
    assert image.imread(tmp_path / "a.png").std() > 0.05  # ink on paper
