"""Attack: a whole, well-recorded engine of another model, or of another stage of this bundle, is slipped in."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from planted_engine import VICTIM, ask, plant_engine
from sealed import sealed

from diffood.errors import BundleError
from diffood.runtime.sessions.engines import find_engine

Reseal = Callable[[str, bytes], None]
OTHER = "was built from other graphs than the bundle's"


def test_an_engine_is_refused_once_a_graph_was_exported_anew(victim: Path, reseal: Reseal) -> None:
    plant_engine(victim)
    assert find_engine(ask(victim), VICTIM)
    unused, used = (victim / f"step_{kind}.onnx" for kind in ("plain", "guided"))
    reseal(unused.name, unused.read_bytes() + b"\x32\x00")  # an empty doc_string: another file, the same graph
    assert find_engine(ask(victim), VICTIM)
    reseal(used.name, used.read_bytes() + b"\x32\x00")
    with pytest.raises(BundleError, match=OTHER):
        find_engine(ask(victim), VICTIM)


def test_the_engines_of_another_bundle_are_refused(victim: Path, tmp_path: Path, reseal: Reseal) -> None:
    other = Path(shutil.copytree(victim, tmp_path / "other"))
    plant_engine(other)
    reseal("classify.onnx", (victim / "classify.onnx").read_bytes() + b"\x32\x00")
    shutil.copytree(other / "engines", victim / "engines")
    with pytest.raises(BundleError, match=OTHER):
        find_engine(ask(victim), VICTIM)


def test_a_stage_passed_off_as_another_is_refused(victim: Path) -> None:
    record_file = plant_engine(victim) / "engine.json"
    record: dict[str, Any] = json.loads(record_file.read_bytes())
    record["stages"].reverse()
    record_file.write_bytes(sealed(record))
    with pytest.raises(BundleError, match=OTHER):
        find_engine(ask(victim), VICTIM)


def test_an_engine_of_another_plan_under_this_ones_name_is_refused(victim: Path) -> None:
    """Both in its record, which then says so, and with a record that lies, whose stages were built from the other."""
    folder = plant_engine(victim, "plain")
    record = json.loads((folder / "engine.json").read_bytes())
    folder = folder.rename(folder.with_name("tensorrt-rtx-sm86-fp32-reference"))
    with pytest.raises(BundleError, match="-reference holds the engine tensorrt-rtx-sm86-fp32-plain"):
        find_engine(ask(victim, "reference"), VICTIM)
    record["plan_name"] = "reference"
    (folder / "engine.json").write_bytes(sealed(record))
    with pytest.raises(BundleError, match="-reference runs another plan, reference"):
        find_engine(ask(victim, "reference"), VICTIM)
    record["plan"] = ask(victim, "reference").plan.model_dump(mode="json")
    (folder / "engine.json").write_bytes(sealed(record))
    with pytest.raises(BundleError, match=OTHER):
        find_engine(ask(victim, "reference"), VICTIM)
