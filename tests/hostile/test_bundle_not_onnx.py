"""Attack: a graph file that is no ONNX graph, under a hash that fits."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

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


@pytest.mark.parametrize("file", ["classify.onnx", "step_guided.onnx"])
@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_refused_in_one_line(
    bundle_copy: Path, reseal: Reseal, file: str, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    reseal(file, GARBAGE[name])
    bundle = open_bundle(bundle_copy)
    with pytest.raises(BundleError, match=rf"{file}.*[Ee]xport the bundle again") as caught:
        Detector.load(bundle, bundle.plan("plain"), batch=2, threads=1)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.999])
def test_a_graph_cut_off_is_refused(bundle_copy: Path, reseal: Reseal, share: float) -> None:
    data = (bundle_copy / "classify.onnx").read_bytes()
    reseal("classify.onnx", data[: int(share * len(data))])
    bundle = open_bundle(bundle_copy)
    with pytest.raises(BundleError, match=r"classify\.onnx"):
        Detector.load(bundle, bundle.plan("plain"), batch=2, threads=1)


@pytest.mark.parametrize("seed", range(12))
def test_a_damaged_graph_is_refused_or_runs_but_nothing_else(bundle_copy: Path, reseal: Reseal, seed: int) -> None:
    data = bytearray((bundle_copy / "classify.onnx").read_bytes())
    random = np.random.default_rng(seed)
    for at in random.integers(0, len(data), 40):
        data[at] = random.integers(256)
    reseal("classify.onnx", bytes(data))
    bundle = open_bundle(bundle_copy)
    try:
        Detector.load(bundle, bundle.plan("plain"), batch=2, threads=1)
    except BundleError as error:
        assert "\n" not in str(error)
