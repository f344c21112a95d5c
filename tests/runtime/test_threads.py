"""One detector used by many: threads, asyncio, calls within calls, forks; every verdict is that of one thread alone."""

import asyncio
import copy
import os
import pickle
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from cheap_calibration import calibrate_cheaply
from fast_plans import FAST

from diffood.errors import EngineMemoryError, UsageError
from diffood.runtime.bundle.bundle import Bundle
from diffood.runtime.detector import Detector
from diffood.runtime.method.plan import PLAIN
from diffood.runtime.sessions import Session
from diffood.runtime.turns import SharedSession
from diffood.zoo.images import unpack_set

Pixels = npt.NDArray[np.uint8]
CHEAP = PLAIN.changed({"start_times": (240, 480), "stride": 240, "repeats": 2})
THREADS = 8


@pytest.fixture(scope="module")
def detector(small_bundle: Bundle) -> Detector:
    """A detector of a plan of several steps, on an engine of two threads."""
    return Detector.load(small_bundle, CHEAP, batch=8, threads=2)


def in_threads(call: Callable[[Any], Any], given: Sequence[Any]) -> list[Any]:
    """The results of `call`, which THREADS threads begin at the same time."""
    start = threading.Barrier(THREADS)

    def begin(mine: Sequence[Any]) -> list[Any]:
        start.wait()
        return [call(one) for one in mine]

    with ThreadPoolExecutor(THREADS) as pool:
        parts = list(pool.map(begin, [given[index::THREADS] for index in range(THREADS)]))
    found = [None] * len(given)
    for index, part in enumerate(parts):
        found[index::THREADS] = part
    return found


def test_eight_threads_get_the_verdicts_of_one(small_bundle_copy: Path, clothes_folder: Path, tmp_path: Path) -> None:
    calibrate_cheaply(small_bundle_copy, clothes_folder, fpr=0.5)
    unpack_set("digits", tmp_path / "digits", 24)
    paths = sorted(clothes_folder.rglob("*.png"))[:24] + sorted((tmp_path / "digits").rglob("*.png"))
    detector = Detector.open(small_bundle_copy)
    alone = detector.predict(paths)
    assert 0 < int(alone.is_ood.sum()) < len(paths)
    found = in_threads(lambda path: detector.predict([path]), paths)
    for name in ("score", "p_value", "predicted", "threshold", "is_ood"):
        np.testing.assert_array_equal(np.concatenate([getattr(one, name) for one in found]), getattr(alone, name))


def test_eight_threads_get_the_scores_of_one_from_calls_of_any_size(
    detector: Detector, clothes: Pixels, subtests: pytest.Subtests
) -> None:
    expected = detector.score(clothes).score
    for size, calls in [(1, 24), (11, 8)]:  # less and more than a batch
        with subtests.test(size=size):
            rows = [np.arange(start, start + size) for start in range(calls)]
            found = in_threads(lambda some: detector.score(clothes[some]).score, rows)
            np.testing.assert_array_equal(np.stack(found), expected[np.stack(rows)])


def test_asyncio_gets_the_scores_of_one_thread(detector: Detector, clothes: Pixels) -> None:
    async def ask() -> list[Any]:
        return await asyncio.gather(
            *(asyncio.to_thread(detector.score, clothes[row : row + 1]) for row in range(len(clothes)))
        )

    found = np.concatenate([one.score for one in asyncio.run(ask())])
    np.testing.assert_array_equal(found, detector.score(clothes).score)


def test_calls_within_a_stream_and_streams_that_are_dropped_change_nothing(detector: Detector, clothes: Pixels) -> None:
    expected = detector.score(clothes[:20]).score
    items = list(enumerate(clothes[:20, None]))
    dropped = detector.stream(items)
    next(dropped)  # and never again
    inner = []
    for key, outer in detector.stream(items):
        assert outer.score == expected[key]
        inner.append(next(detector.stream([items[-1 - key]]))[1].score)
    np.testing.assert_array_equal(inner, expected[::-1])
    np.testing.assert_array_equal(
        in_threads(lambda row: detector.score(clothes[row : row + 1]).score[0], range(20)), expected
    )


def test_detectors_on_one_session_take_turns(detector: Detector, small_bundle: Bundle, clothes: Pixels) -> None:
    calls: list[Callable[[Pixels], Any]] = [
        lambda x: detector.score(x).score,
        lambda x: [found.by_start(2).mean() for _, found in detector.observe(enumerate(x[:, None]))],
    ]
    expected = [list(call(clothes[:24])) for call in calls]
    found = in_threads(lambda row: calls[row % 2](clothes[row : row + 1])[0], range(24))
    assert found == [expected[row % 2][row] for row in range(24)]


def wait_until(true: Callable[[], bool]) -> None:
    """Let other threads run until something is true."""
    for _ in range(10_000):
        if true():
            return
        threading.Event().wait(0.001)
    raise AssertionError("it never became true")


def test_calls_that_wait_share_the_next_turn_and_a_failure_stays_with_its_call(small_bundle: Bundle) -> None:
    shared = SharedSession(Detector.load(small_bundle, FAST, batch=4, threads=1).session)
    first_is_on, go_on, turns = threading.Event(), threading.Event(), []

    def work(session: Session, images: Sequence[Pixels]) -> list[Any]:
        first_is_on.set()
        go_on.wait(60)
        turns.append([int(image) for image in images])
        if 7 in turns[-1]:
            raise ValueError("7")
        return [10 * int(image) for image in images]

    def ask(numbers: Sequence[int]) -> list[Any]:
        return shared.run(work, [np.array(number) for number in numbers])

    with ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(ask, (0,))]
        first_is_on.wait(60)
        for numbers in ((1, 2), (3,), (4, 5), (6,), (7,)):
            asked.append(pool.submit(ask, numbers))
            wait_until(lambda: len(shared._waiting) == len(asked))
        go_on.set()
        answers = [future.result() for future in asked[:-1]]
        with pytest.raises(ValueError, match="7"):
            asked[-1].result()
    assert answers == [[0], [10, 20], [30], [40, 50], [60]]
    assert turns[0] == [0]
    assert sorted(turns[1]) == [1, 2, 3, 4, 5]  # those that wait when a batch of 4 is not yet full
    assert sorted(number for turn in turns if 7 not in turn for number in turn) == list(range(7))
    assert not shared._waiting


def test_out_of_memory_halves_the_batch_until_the_work_succeeds_or_one_row_is_left(
    small_bundle: Bundle, subtests: pytest.Subtests
) -> None:
    def load(rows: int) -> Session:
        return Detector.load(small_bundle, FAST, batch=rows, threads=1).session

    images = [np.array(number) for number in range(13)]
    for most, batches in [(8, [8]), (2, [8, 4, 2]), (0, [8, 4, 2, 1])]:
        tried: list[int] = []

        def work(session: Session, given: Sequence[Pixels], most: int = most, tried: list[int] = tried) -> list[Any]:
            tried.append(session.batch)
            if session.batch > most:
                raise EngineMemoryError(f"none for {session.batch}")
            return [int(image) for image in given]

        shared = SharedSession(load(8), load)
        with subtests.test(most=most):
            if most:
                assert shared.run(work, images) == list(range(13))
            else:
                with pytest.raises(EngineMemoryError, match="none for 1"):
                    shared.run(work, images)
            assert tried == batches
            assert shared.batch == shared.session.batch == batches[-1]
    with pytest.raises(EngineMemoryError, match="none for 8"):
        SharedSession(load(8)).run(work, images)


def test_a_closed_detector_refuses_and_what_was_under_way_is_finished(small_bundle: Bundle, clothes: Pixels) -> None:
    with Detector.load(small_bundle, CHEAP, batch=8, threads=1) as detector:
        expected = detector.score(clothes[:1]).score[0]
        begun = threading.Event()

        def ask() -> list[float]:
            found = []
            while True:
                try:
                    found.append(detector.score(clothes[:1]).score[0])
                except UsageError as error:
                    assert "This detector was closed" in str(error)
                    return found
                begun.set()

        with ThreadPoolExecutor(3) as pool:
            asked = [pool.submit(ask) for _ in range(3)]
            begun.wait(60)
            detector.close()
            answers = [answer for future in asked for answer in future.result()]
    assert answers
    assert set(answers) == {expected}
    for use in (lambda: detector.score(clothes[:1]), lambda: detector.session):
        with pytest.raises(UsageError, match="open the bundle again with"):
            use()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_is_told_to_open_its_own(detector: Detector, clothes: Pixels) -> None:
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            detector.score(clothes[:1])
        except UsageError as error:
            os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    message = os.read(reading, 10_000).decode()
    os.close(reading)
    os.close(writing)
    assert f"was opened in process {os.getpid()} and is used in process {child}" in message
    assert "call Detector.open in each process" in message


def test_a_detector_cannot_be_pickled_or_copied(detector: Detector, subtests: pytest.Subtests) -> None:
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with subtests.test(attempt=attempt), pytest.raises(UsageError, match="give the other process"):
            attempt(detector)
