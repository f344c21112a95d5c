"""An engine that is here, fits and cannot be loaded: the next one runs, and what happened is said."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from halved_graphs import reseal
from rounded_graphs import add_rounded_graphs

from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import Bundle
from diffood.runtime.detector import Detector

Run = Callable[..., Any]  # gives conftest.Done


@pytest.fixture(scope="module")
def broken(small_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle in FP32 and FP16 whose classifier in FP32 no engine can load; read-only."""
    path = Path(shutil.copytree(small_bundle.path, tmp_path_factory.mktemp("broken") / "bundle"))
    add_rounded_graphs(path, "fp16")
    (path / "classify.onnx").write_bytes(b"no graph")
    reseal(path, lambda _: None)
    return path


def test_the_next_engine_is_opened_and_says_why(broken: Path, clothes: npt.NDArray[np.uint8]) -> None:
    detector = Detector.open(broken, "plain", precision="auto", batch=4, threads=1)
    assert detector.session.precision == "fp16"
    assert "; not fp32 on onnxruntime-cpu because " in detector.why
    assert "classify.onnx is not an ONNX graph" in detector.why
    assert np.isfinite(detector.score(clothes[:2]).score).all()


def test_an_engine_that_was_asked_for_by_name_must_load(broken: Path) -> None:
    with pytest.raises(BundleError, match=r"classify\.onnx is not an ONNX graph"):
        Detector.open(broken, "plain", backend="onnxruntime-cpu", precision="fp32", batch=4, threads=1)


def test_where_none_loads_the_first_reason_is_given(broken: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(broken, tmp_path / "bundle"))
    (path / "classify.fp16.onnx").write_bytes(b"no graph either")
    reseal(path, lambda _: None)
    with pytest.raises(BundleError, match=r"classify\.onnx is not an ONNX graph"):
        Detector.open(path, "plain", precision="auto", batch=4, threads=1)


def test_verify_reports_it_and_checks_the_others(broken: Path, run: Run) -> None:
    done = run("verify", broken, "--batch", 4, "--threads", 1)
    assert done.code == 1
    table = [line.split(maxsplit=5) for line in done.out.splitlines()]
    found = {(what, precision): passed for what, precision, _, _, passed, *_ in (row for row in table if len(row) > 5)}
    assert (found["engine", "fp32"], found["golden", "fp16"], found["contract", "fp16"]) == ("FAILED", "ok", "ok")
    assert ("golden", "fp32") not in found
