"""Attack: a graph file that is no ONNX graph, under a hash that fits."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from attacks import undone

from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.detector import Detector

Reseal = Callable[[str, bytes], None]

GARBAGE = {
    "empty": b"",
    "text": b"this is no graph\n" * 100,
    "noise": np.random.default_rng(0).bytes(10_000),
    "zeros": bytes(10_000),
    "ones": b"\xff" * 10_000,
    "zip": b"PK\x03\x04" + bytes(1000),
    "ORT format": b"\x08\x00\x00\x00ORTM" + bytes(1000),
    "endless number": b"\x08" + b"\x80" * 1000,
    "a field longer than the file": b"\x3a\xff\xff\xff\xff\x07",
    "an empty graph": b"\x08\x0a\x3a\x00",
}


def test_garbage_is_refused_in_one_line(
    victim: Path, reseal: Reseal, capfd: pytest.CaptureFixture[str], subtests: pytest.Subtests
) -> None:
    for file, name in itertools.product(["classify.onnx", "step_guided.onnx"], GARBAGE):
        with subtests.test(file=file, name=name), undone(victim):
            reseal(file, GARBAGE[name])
            bundle = open_bundle(victim)
            with pytest.raises(BundleError, match=rf"{file}.*[Ee]xport the bundle again") as caught:
                Detector.load(bundle, bundle.plan("plain"), batch=2, threads=1)
            assert "\n" not in str(caught.value)
            assert capfd.readouterr() == ("", "")


def test_a_graph_cut_off_is_refused(victim: Path, reseal: Reseal, subtests: pytest.Subtests) -> None:
    for share in [0.1, 0.5, 0.999]:
        with subtests.test(share=share), undone(victim):
            data = (victim / "classify.onnx").read_bytes()
            reseal("classify.onnx", data[: int(share * len(data))])
            bundle = open_bundle(victim)
            with pytest.raises(BundleError, match=r"classify\.onnx"):
                Detector.load(bundle, bundle.plan("plain"), batch=2, threads=1)


def test_a_damaged_graph_is_refused_or_runs_but_nothing_else(
    victim: Path, reseal: Reseal, subtests: pytest.Subtests
) -> None:
    for seed in range(12):
        with subtests.test(seed=seed), undone(victim):
            data = bytearray((victim / "classify.onnx").read_bytes())
            random = np.random.default_rng(seed)
            for at in random.integers(0, len(data), 40):
                data[at] = random.integers(256)
            reseal("classify.onnx", bytes(data))
            bundle = open_bundle(victim)
            try:
                Detector.load(bundle, bundle.plan("plain"), batch=2, threads=1)
            except BundleError as error:
                assert "\n" not in str(error)
