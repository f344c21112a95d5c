"""Attack: a graph with a tensor that claims gigabytes and holds a few bytes."""

import resource
from collections.abc import Callable
from pathlib import Path

import pytest
from attacks import undone

from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.detector import Detector

onnx = pytest.importorskip("onnx")

Reseal = Callable[[str, bytes], None]

MAX_MEMORY_KB = 2**20  # the claims are of two gigabytes and more


def test_a_claim_is_refused_without_setting_the_memory_aside(
    victim: Path, reseal: Reseal, subtests: pytest.Subtests
) -> None:
    for dims in [[2**29 + 1], [2**31], [2**16, 2**16, 2**16], [2**62, 4]]:
        with subtests.test(dims=dims), undone(victim):
            model = onnx.load(victim / "classify.onnx")
            model.graph.initializer[0].dims[:] = dims
            reseal("classify.onnx", model.SerializeToString())
            bundle = open_bundle(victim)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            with pytest.raises(BundleError, match="cannot load the graphs of"):
                Detector.load(bundle, bundle.plan("plain"), batch=1, threads=1)
            assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MAX_MEMORY_KB
