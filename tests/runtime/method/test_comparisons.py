"""Witnesses that compare an image with in-distribution ones: each a second time, left out, and in a graph."""

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffood.runtime.method.mahalanobis import SHRINKAGE
from diffood.runtime.method.witnesses.definition import BankComparison
from diffood.runtime.method.witnesses.inside import INSIDE
from diffood.runtime.method.witnesses.margin import MARGIN
from diffood.runtime.onnx import messages
from diffood.runtime.onnx.builder import GraphBuilder

Array = npt.NDArray[np.float32]

SIZES = st.tuples(st.integers(4, 60), st.integers(1, 24), st.integers(2, 5), st.integers(0, 2**16))


def drawn(count: int, width: int, classes: int, seed: int) -> tuple[Array, Array]:
    """Vectors about one mean a class, and logits that prefer it."""
    draw = np.random.default_rng(seed)
    place = draw.integers(classes, size=count)
    vectors = draw.normal(size=(classes, width))[place] + 0.3 * draw.normal(size=(count, width))
    logits = 4 * np.eye(classes)[place] + 0.3 * draw.normal(size=(count, classes))
    return vectors.astype(np.float32), logits.astype(np.float32)


def comparison(name: str) -> BankComparison:
    found = {"margin": MARGIN, "inside": INSIDE}[name].comparison
    assert found is not None
    return found


@given(SIZES)
def test_margin_is_the_lead_of_the_first_class_by_the_distance_from_the_mean(
    sizes: tuple[int, int, int, int],
) -> None:
    vectors, logits = drawn(*sizes)
    reference, _ = comparison("margin").fit(vectors[1:], logits[1:])
    lead = max(logits[0]) - sum(map(float, logits[0])) / len(logits[0])
    distance = np.sqrt(sum((float(a) - float(b)) ** 2 for a, b in zip(vectors[0], reference["mean"], strict=True)))
    found = comparison("margin").measure(reference, vectors[0], logits[0])
    assert found == pytest.approx(-lead / distance, rel=1e-5)


@given(SIZES)
def test_inside_is_the_distance_of_mahalanobis_from_the_nearest_class(sizes: tuple[int, int, int, int]) -> None:
    vectors, logits = drawn(*sizes)
    reference, _ = comparison("inside").fit(vectors[1:], logits[1:])
    rows = vectors.astype(np.float64) / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    asked, known, classes = rows[0], rows[1:], logits[1:].argmax(axis=1)
    means = {k: known[classes == k].mean(axis=0) for k in set(classes.tolist())}
    off = known - np.stack([means[k] for k in classes.tolist()])
    covariance = off.T @ off / len(off)
    if np.trace(covariance) < 1e-12:
        return  # as many classes as vectors: nothing varies
    covariance = (1 - SHRINKAGE) * covariance + SHRINKAGE * np.trace(covariance) / len(covariance) * np.eye(len(asked))
    expected = min(np.sqrt((asked - m) @ np.linalg.solve(covariance, asked - m)) for m in means.values())
    found = comparison("inside").measure(reference, vectors[0], logits[0])
    assert found == pytest.approx(expected, rel=2e-3, abs=2e-3)


@pytest.mark.parametrize("name", ["margin", "inside"])
def test_what_is_said_of_an_image_left_out_is_said_without_it(name: str) -> None:
    vectors, logits = drawn(60, 8, 3, 7)
    _, own = comparison(name).fit(vectors, logits)
    others = [np.arange(60) != index for index in range(60)]
    again = [
        comparison(name).measure(comparison(name).fit(vectors[rest], logits[rest])[0], vectors[index], logits[index])
        for index, rest in enumerate(others)
    ]
    assert own == pytest.approx(again, rel=0.02)  # the isotropic part of the covariance is left as it is


@pytest.mark.parametrize("name", ["margin", "inside"])
def test_a_graph_says_the_same(name: str) -> None:
    vectors, logits = drawn(80, 300, 4, 3)
    reference, _ = comparison(name).fit(vectors[20:], logits[20:])
    builder = GraphBuilder()
    inputs = [
        builder.input("v", messages.FLOAT, ("batch", 300)),
        builder.input("l", messages.FLOAT, ("batch", 4)),
    ]
    builder.output("y", comparison(name).write(reference, *inputs), messages.FLOAT, ("batch",))
    session = onnxruntime.InferenceSession(builder.serialise({"": 21}), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"v": vectors[:20], "l": logits[:20]})
    expected = [comparison(name).measure(reference, *pair) for pair in zip(vectors[:20], logits[:20], strict=True)]
    assert found == pytest.approx(np.array(expected), rel=1e-4)
