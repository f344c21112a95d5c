"""Fixtures of the attacks on bundles: an attacker who can also correct hashes; a bundle calibrated with a fusion."""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sealed import sealed
from small_models import SMALL_BUNDLE

from diffood.calibration.calibrate import calibrate_files
from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.bundle.fusion import FusionRecord
from diffood.runtime.detector import Detector
from diffood.runtime.inputs.open import list_inputs
from diffood.runtime.method.plan import DEFAULT

Reseal = Callable[[str, bytes], None]
Rewrite = Callable[[Callable[[dict[str, Any]], object]], None]


@pytest.fixture
def victim(small_bundle_copy: Path) -> Path:
    """A bundle for an attack to change."""
    return small_bundle_copy


@pytest.fixture
def rewrite(victim: Path) -> Rewrite:
    """Let a function change the parsed manifest of `victim` and write it back."""

    def apply(change: Callable[[dict[str, Any]], object]) -> None:
        path = victim / "manifest.json"
        manifest = json.loads(path.read_bytes())
        change(manifest)
        path.write_bytes(sealed(manifest))

    return apply


@pytest.fixture
def reseal(victim: Path, rewrite: Rewrite) -> Reseal:
    """Replace a file of `victim` and give the manifest its new hash and size."""

    def replace(name: str, data: bytes) -> None:
        (victim / name).write_bytes(data)
        entry = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        rewrite(lambda manifest: manifest["files"].update({name: entry}))

    return replace


@pytest.fixture(scope="session")
def fused_original(tmp_path_factory: pytest.TempPathFactory, clothes_folder: Path) -> Path:
    """A copy of the shipped bundle, calibrated with a fusion that has a bank; read-only."""
    path = Path(shutil.copytree(SMALL_BUNDLE, tmp_path_factory.mktemp("fused") / "bundle"))
    changes = {"start_times": (120,), "stride": 120, "repeats": 1, "guidance": 0.0, "witnesses": ("jump", "margin")}
    detector = Detector.load(open_bundle(path), DEFAULT.changed(changes), batch=8, threads=1)
    calibrate_files(detector, list_inputs([str(clothes_folder)]), 0.1, 0.95, "pac").save()
    return path


@pytest.fixture
def fused(fused_original: Path, tmp_path: Path) -> Path:
    """A copy of it that opens, and that a test may damage."""
    path = Path(shutil.copytree(fused_original, tmp_path / "fused"))
    Detector.open(path, batch=8, threads=1).calibration()
    return path


@pytest.fixture
def bank(fused: Path) -> Path:
    """The one file of features in `fused`."""
    (path,) = (fused / "calibrations").glob("bank.*.npz")
    return path


@pytest.fixture
def change_fusion(fused: Path) -> Rewrite:
    """Let a function change the fusion in `fused`, and give the fingerprint the hash of what holds, if it does."""

    def apply(change: Callable[[dict[str, Any]], object]) -> None:
        path = fused / "calibration.json"
        content = json.loads(path.read_bytes())
        change(content["fusion"])
        with contextlib.suppress(ValueError):  # what does not hold has no hash
            content["fingerprint"]["fusion_sha256"] = FusionRecord.model_validate(content["fusion"]).sha256
        path.write_bytes(sealed(content))

    return apply


@pytest.fixture
def replace_bank(fused: Path, bank: Path, change_fusion: Rewrite) -> Callable[[bytes], None]:
    """Replace the bank of `fused` and give the calibration its new hash and size."""

    def apply(data: bytes) -> None:
        bank.write_bytes(data)
        entry = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        change_fusion(lambda fusion: fusion["bank"].update(entry))

    return apply


@pytest.fixture
def refusal(fused: Path) -> Callable[[], str]:
    """The one line with which `fused` is refused."""

    def message() -> str:
        with pytest.raises(BundleError) as caught:
            Detector.open(fused, batch=8, threads=1)
        text = str(caught.value)
        assert text.isprintable()  # one line, no escapes
        return text

    return message
