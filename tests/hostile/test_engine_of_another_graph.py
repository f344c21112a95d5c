"""Attack: a whole, well-recorded engine of another model, or of another graph of this bundle, is slipped in."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from planted_engine import VICTIM, plant_engine

from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.bundle.engines import find_engine

Reseal = Callable[[str, bytes], None]


def test_an_engine_is_refused_once_its_graph_was_exported_anew(victim: Path, reseal: Reseal) -> None:
    plant_engine(victim)
    assert find_engine(open_bundle(victim), VICTIM, "fp32", 8)
    graph = victim / "step_plain.onnx"
    reseal("step_plain.onnx", graph.read_bytes() + b"\x32\x00")  # an empty doc_string: another file, the same graph
    with pytest.raises(BundleError, match=r"was built from another step_plain.onnx than the bundle's"):
        find_engine(open_bundle(victim), VICTIM, "fp32", 8)


def test_the_engines_of_another_bundle_are_refused(victim: Path, tmp_path: Path, reseal: Reseal) -> None:
    other = Path(shutil.copytree(victim, tmp_path / "other"))
    plant_engine(other)
    reseal("classify.onnx", (victim / "classify.onnx").read_bytes() + b"\x32\x00")
    shutil.copytree(other / "engines", victim / "engines")
    with pytest.raises(BundleError, match=r"was built from another classify.onnx"):
        find_engine(open_bundle(victim), VICTIM, "fp32", 8)


def test_a_plan_passed_off_as_anothers_is_refused(victim: Path) -> None:
    record_file = plant_engine(victim) / "engine.json"
    record: dict[str, Any] = json.loads(record_file.read_bytes())
    record["plans"][0]["role"], record["plans"][1]["role"] = record["plans"][1]["role"], record["plans"][0]["role"]
    record_file.write_text(json.dumps(record))
    with pytest.raises(BundleError, match=r"was built from another .*\.onnx than the bundle's"):
        find_engine(open_bundle(victim), VICTIM, "fp32", 8)
