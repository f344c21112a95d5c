"""A call of the CPU session shared among threads: whole, in order, the same rows whoever computes them."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fast_plans import FAST

from diffood.runtime.bundle.bundle import Bundle
from diffood.runtime.detector import Detector
from diffood.runtime.images.pixels import from_pixels
from diffood.runtime.method.scoring import Array
from diffood.runtime.sessions import onnxruntime
from diffood.runtime.sessions.onnxruntime import SharedGraph
from diffood.zoo.images import load_set

OUTPUTS = ["logits", "features"]


@pytest.fixture(scope="module")
def x() -> Array:
    """Real images, clothes and others."""
    return from_pixels(np.concatenate([load_set("fashion-test").images[:20], load_set("digits").images[:20]])[:, None])


def rows(bundle: Bundle, x: Array, threads: int) -> list[Array]:
    return list(SharedGraph(bundle, "classify", "fp32", len(x), threads).run(OUTPUTS, {"x": x, "unused": x}))


def test_every_row_is_there_once_and_in_order(small_bundle: Bundle, x: Array, subtests: pytest.Subtests) -> None:
    for batch, threads in itertools.product([1, 2, 5, 7, 32], [1, 2, 3, 4, 6, 33]):
        with subtests.test(batch=batch, threads=threads):
            alone = rows(small_bundle, x[:batch], 1)
            for found, expected in zip(rows(small_bundle, x[:batch], threads), alone, strict=True):
                assert found.shape == expected.shape
                np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


def test_a_row_does_not_depend_on_the_thread_that_computes_it(
    small_bundle: Bundle, x: Array, subtests: pytest.Subtests
) -> None:
    for threads in [1, 2, 3]:
        with subtests.test(threads=threads):
            graph = SharedGraph(small_bundle, "classify", "fp32", 8, threads)
            expected = graph.run(OUTPUTS, {"x": x[:8]})
            for shift in range(1, 8):
                found = graph.run(OUTPUTS, {"x": np.roll(x[:8], shift, axis=0)})
                for one, other in zip(found, expected, strict=True):
                    np.testing.assert_array_equal(one, np.roll(other, shift, axis=0))


def test_a_row_is_the_same_however_many_there_are(small_bundle: Bundle, x: Array, subtests: pytest.Subtests) -> None:
    """ONNX Runtime itself rounds calls of 1, 2 and 4 rows of this graph differently on some CPUs."""
    for batch, threads in [(32, 1), (32, 2), (8, 1), (3, 2)]:
        graph = SharedGraph(small_bundle, "classify", "fp32", batch, threads)
        expected = graph.run(OUTPUTS, {"x": x})
        for count in [0, 1, 2, 3, 5, 17]:
            with subtests.test(batch=batch, threads=threads, count=count):
                for one, other in zip(graph.run(OUTPUTS, {"x": x[:count]}), expected, strict=True):
                    np.testing.assert_array_equal(one, other[:count])


def test_few_images_cost_few_rows(small_bundle: Bundle, x: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    run, rows_run = onnxruntime.run_graph, []

    def counting(session: Any, outputs: list[str], feeds: dict[str, Array]) -> Any:
        rows_run.append(len(feeds["x"]))
        return run(session, outputs, feeds)

    monkeypatch.setattr(onnxruntime, "run_graph", counting)
    detector = Detector.load(small_bundle, FAST, threads=1)
    for count, rows_expected in [(1, 2 + 4 + 2), (3, 4 + 4 + 4), (32, 3 * 32)]:  # classify, one plain step, classify
        rows_run.clear()
        assert len(list(detector.observe(enumerate(x[:count])))) == count
        assert sum(rows_run) == rows_expected


def test_an_error_in_any_share_is_raised(small_bundle: Bundle, x: Array, tmp_path: Path) -> None:
    graph = SharedGraph(small_bundle, "classify", "fp32", 4, 2)
    with pytest.raises(Exception, match=r"[Ii]nvalid"):
        graph.run(OUTPUTS, {"x": x[:4, :, :14]})
    np.testing.assert_array_equal(graph.run(OUTPUTS, {"x": x[:4]})[0], rows(small_bundle, x[:4], 2)[0])
