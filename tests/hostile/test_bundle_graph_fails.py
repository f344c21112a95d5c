"""Attack: allowed operators that fail while the engine runs them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hostile_graphs import write_hostile

from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.detector import Detector
from diffood.runtime.onnx import messages
from diffood.runtime.onnx.builder import Value


def out_of_range(x: Value) -> Value:
    """An image, for which a place that is not there is looked up."""
    builder = x.builder
    place = (x * 0.0 + 1e6).cast(messages.INT64).reduce("ReduceMax", 0, 1, 2, 3)
    return x + builder.node("Gather", builder.constant(np.ones(3, np.float32)), place, axis=0)


def half_as_wide(logits: Value) -> Value:
    """Twice as many rows of half the width, a number that an engine knows when it runs."""
    five = (logits.reduce("ReduceSum", 0, 1) * 0.0 + 5.0).cast(messages.INT64).reshape(1)
    return logits.builder.node("Reshape", logits, logits.builder.concat([logits.builder.integers([-1]), five]))


def row_twice(logits: Value) -> Value:
    """Two rows for an image: declared is a free number of them."""
    return logits.builder.concat([logits, logits])


def test_a_graph_that_fails_while_it_runs_is_explained_in_a_sentence(
    victim: Path, reseal: Callable[[str, bytes], None]
) -> None:
    reseal("classify.onnx", write_hostile((victim / "classify.onnx").read_bytes(), out_of_range))
    bundle = open_bundle(victim)
    with (
        Detector.load(bundle, bundle.plan("plain"), batch=2, threads=1) as detector,
        pytest.raises(BundleError, match=r"ONNX Runtime failed while it ran a graph of the bundle \(.+\): export the"),
    ):
        list(detector.observe(enumerate(np.zeros((2, 1, 28, 28), np.uint8))))


def test_outputs_of_other_shapes_than_declared_are_refused(
    victim: Path, reseal: Callable[[str, bytes], None], subtests: pytest.Subtests
) -> None:
    original = (victim / "classify.onnx").read_bytes()
    changes = {"start_times": (), "repeats": 0, "witnesses": ("energy",)}
    for logits in (half_as_wide, row_twice):
        with subtests.test(logits.__name__):
            reseal("classify.onnx", write_hostile(original, logits=logits))
            bundle = open_bundle(victim)
            with (
                Detector.load(bundle, bundle.plan("plain").changed(changes), batch=2, threads=1) as detector,
                pytest.raises(BundleError, match=r"gives 'logits' of the shape \[.+\] and declares \[2, 10\]; export"),
            ):
                list(detector.observe(enumerate(np.zeros((2, 1, 28, 28), np.uint8))))
