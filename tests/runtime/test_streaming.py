"""Files pass through a detector as a stream: no more are read than are needed, and every one comes out in its place."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from diffood.runtime import item_pass
from diffood.runtime.bundle.bundle import Bundle
from diffood.runtime.detector import Detector
from diffood.runtime.inputs.decoding import IN_THREADS, DecodeOptions
from diffood.runtime.inputs.items import PAUSE, InlineItem, LocalFile, Pause
from diffood.runtime.method.plan import Plan
from diffood.runtime.pipeline import score_files
from diffood.zoo.images import unpack_set

FAST = Plan(start_times=(120, 240), stride=120, repeats=1, guidance=2.0)
BATCH = 8


@pytest.fixture(scope="module")
def detector(small_bundle: Bundle) -> Detector:
    """A detector of the small bundle with a fast plan, not calibrated."""
    return Detector.load(small_bundle, FAST, batch=BATCH, threads=1)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A good file, g, and one that is refused, x; read-only."""
    folder = tmp_path_factory.mktemp("paths")
    (good,) = unpack_set("fashion-test", folder, 1)
    (folder / "zero.png").touch()
    return {"g": good, "x": folder / "zero.png"}


def test_endless_sources_are_read_as_they_are_needed(
    detector: Detector, paths: dict[str, Path], subtests: pytest.Subtests
) -> None:
    for kind, path in paths.items():
        with subtests.test(kind=kind):
            pulled = 0

            def endless() -> Iterator[LocalFile]:
                nonlocal pulled
                for index in range(10**9):
                    pulled += 1
                    yield LocalFile(str(index), path)

            outcomes = score_files(detector, endless())
            assert [outcome.source.id for outcome in itertools.islice(outcomes, 20)] == [
                str(index) for index in range(20)
            ]
            assert pulled <= item_pass.REFUSED_HELD + 10 * BATCH


def test_a_turn_has_fewer_batches_where_images_would_fill_memory(
    small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffood.runtime.detector.MOST_TURN_BYTES", 2**20)  # 267 images of 28x28
    for batch, batches in [(8, 4), (100, 2), (4096, 1)]:
        with Detector.load(small_bundle, FAST, batch=batch, threads=1) as loaded:
            assert loaded.turn == batches * batch, batch


def test_long_runs_of_refused_files_lose_no_row(
    detector: Detector, paths: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(item_pass, "REFUSED_HELD", 3)
    for pattern in ("xxx", "xxxxxxx", "gxxxg", "gggggggggggxxxxxxgxxxgggx", "xxxg", "gxxx"):
        outcomes = list(score_files(detector, (LocalFile(str(i), paths[kind]) for i, kind in enumerate(pattern))))
        assert [outcome.source.id for outcome in outcomes] == [str(index) for index in range(len(pattern))]
        assert [outcome.result is None for outcome in outcomes] == [kind == "x" for kind in pattern]


def test_a_pause_of_the_sources_brings_out_every_outcome(
    detector: Detector, paths: dict[str, Path], subtests: pytest.Subtests
) -> None:
    for (case, decoding), pattern in itertools.product(
        {"threads": IN_THREADS, "processes": DecodeOptions(processes=1)}.items(),
        ["g_", "x_", "gg_xg_", "_g", "g__g", "ggggggggggg_g", "_", "xg_gx_x"],
    ):
        with subtests.test(case=case, pattern=pattern):
            found: list[str] = []

            def sources() -> Iterator[LocalFile | Pause]:
                for index, kind in enumerate(pattern):
                    if kind == "_":
                        yield PAUSE
                        # The pass asks for more only after all that came before is out.
                        assert len(found) == sum(other != "_" for other in pattern[:index])
                    else:
                        yield LocalFile(f"{index}{kind}", paths[kind])

            for outcome in score_files(detector, sources(), decoding=decoding):
                found.append(outcome.source.id)
                assert (outcome.result is None) == (outcome.source.id[-1] == "x")
            assert found == [f"{index}{kind}" for index, kind in enumerate(pattern) if kind != "_"]


def test_items_that_hold_their_bytes_do_not_fill_memory(
    detector: Detector, paths: dict[str, Path], monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    for case, decoding in {"threads": IN_THREADS, "processes": DecodeOptions(processes=1)}.items():
        with subtests.test(case=case):
            data = paths["g"].read_bytes()
            monkeypatch.setattr(item_pass, "MOST_HELD", 5 * len(data))
            monkeypatch.setattr("diffood.runtime.inputs.decoding.MOST_HELD", 5 * len(data))
            pulled = 0

            def sources() -> Iterator[InlineItem]:
                nonlocal pulled
                for index in range(60):
                    pulled += 1
                    yield InlineItem(str(index), str(index), data if index % 7 else b"no image" * 100)

            given = 0
            for outcome in score_files(detector, sources(), decoding=decoding):
                assert outcome.source.id == str(given)
                given += 1
                assert pulled - given <= 14  # five under way, as many ahead, and what goes over the limit
            assert given == pulled == 60
