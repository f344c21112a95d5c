"""Attack: the fusion of another calibration of the same plan, whose threshold it does not belong to."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sealed import sealed

from diffood.calibration.calibrate import calibrate_files
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.bundle.calibration import list_kept, load_calibration
from diffood.runtime.detector import Detector
from diffood.runtime.inputs.open import list_inputs
from diffood.zoo.images import unpack_set


@pytest.fixture
def two(fused: Path, tmp_path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The calibration of `fused` and the earlier one of the same plan, both as parsed JSON, banks and all."""
    unpack_set("fashion-test", tmp_path / "images", 80)
    bundle = open_bundle(fused)
    detector = Detector.load(bundle, load_calibration(bundle).fingerprint.plan, batch=8, threads=1)
    calibrate_files(detector, list_inputs([str(tmp_path / "images")]), 0.1, 0.95, "pac").save()
    (kept,) = list_kept(bundle)
    return json.loads((fused / "calibration.json").read_bytes()), json.loads(
        (fused / "calibrations" / kept).read_bytes()
    )


def test_the_fusion_of_another_calibration_is_refused(
    fused: Path, two: tuple[dict[str, Any], dict[str, Any]], refusal: Callable[[], str]
) -> None:
    now, before = two
    assert now["fusion"] != before["fusion"]
    (fused / "calibration.json").write_bytes(sealed({**now, "fusion": before["fusion"]}))
    assert "the fusion is not the one of the fingerprint" in refusal()
    (fused / "calibration.json").write_bytes(sealed(before))  # whole, it holds
    Detector.open(fused, batch=8, threads=1).calibration()


def test_the_bank_of_another_calibration_is_refused(
    fused: Path, two: tuple[dict[str, Any], dict[str, Any]], refusal: Callable[[], str]
) -> None:
    now, before = two
    mixed = {**now["fusion"], "bank": before["fusion"]["bank"]}
    (fused / "calibration.json").write_bytes(sealed({**now, "fusion": mixed}))
    assert "the fusion is not the one of the fingerprint" in refusal()
    (fused / "calibration.json").write_bytes(sealed(now))
    names = [fused / "calibrations" / content["fusion"]["bank"]["file"] for content in two]
    names[0].write_bytes(names[1].read_bytes())  # the other's bytes under its name
    assert "calibrate again" in refusal()


def test_a_fusion_taken_out_or_put_into_a_plain_plan_is_refused(
    fused: Path, two: tuple[dict[str, Any], dict[str, Any]], refusal: Callable[[], str]
) -> None:
    now, _ = two
    bare = {**now, "fusion": None, "fingerprint": {**now["fingerprint"], "fusion_sha256": None}}
    (fused / "calibration.json").write_bytes(sealed(bare))
    assert "need a fusion, and there is none" in refusal()
    plain = {**now["fingerprint"]["plan"], "witnesses": ["jump"]}
    (fused / "calibration.json").write_bytes(sealed({**now, "fingerprint": {**now["fingerprint"], "plan": plain}}))
    assert "take no fusion, and there is one" in refusal()
