"""diffood doctor: what it names, what it sends the user to install, and the clash of two packages in one folder."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from diffood.cli.doctor import CLASH, PACKAGES, examine_packages
from diffood.runtime.backends import BACKENDS

EXTRAS = {
    "onnxruntime-gpu": "diffood[gpu]",
    "tensorrt": "diffood[tensorrt]",
    "tensorrt-rtx": "diffood[tensorrt-rtx]",
    "cuda-bindings": "diffood[tensorrt]",
    "polygraphy": "diffood[tensorrt]",
    "torch": "diffood[export]",
}


def doctor(*words: str, folder: Path | None = None) -> str:
    """What the command prints in a process that also sees the distributions in `folder`, and no GPU."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    if folder:
        environment["PYTHONPATH"] = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "diffood", "doctor", *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def install(folder: Path, name: str, version: str) -> None:
    """What an installer leaves for importlib.metadata to find."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def content(folder: Path | None = None) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(doctor("--json", folder=folder))
    return found


def test_every_optional_package_is_named_with_what_installs_it() -> None:
    found = {finding.package: finding for finding in examine_packages()}
    assert found.keys() == PACKAGES.keys()
    for package, extra in EXTRAS.items():
        assert f"pip install '{extra}'" in found[package].install
        assert found[package].purpose


def test_gpu_and_backends_are_reported_with_their_reasons() -> None:
    text, machine = doctor(), content()
    assert machine["device"] is None
    assert [entry["backend"] for entry in machine["backends"]] == list(BACKENDS)
    assert [entry["usable"] for entry in machine["backends"]] == [False, False, False, True]
    for entry in machine["backends"]:
        assert f"backend         {entry['backend']} {'can run' if entry['usable'] else 'cannot run'}: " in text
        assert entry["reason"] in text
    assert "\nGPU             none: " in text
    assert all(f"\n{package:<16}" in text for package in PACKAGES)


@pytest.mark.parametrize(
    ("distribution", "package"),
    [
        ("tensorrt", "tensorrt"),
        ("tensorrt-cu12", "tensorrt"),
        ("tensorrt_cu13", "tensorrt"),
        ("tensorrt_rtx", "tensorrt-rtx"),
        ("tensorrt-rtx-cu13", "tensorrt-rtx"),
        ("onnxruntime-gpu", "onnxruntime-gpu"),
        ("cuda-bindings", "cuda-bindings"),
    ],
)
def test_a_package_is_known_by_every_name_it_is_installed_under(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, distribution: str, package: str
) -> None:
    install(tmp_path, distribution, "99.1")
    monkeypatch.syspath_prepend(tmp_path)
    versions = {finding.package: finding.version for finding in examine_packages()}
    real = versions[package]
    assert real == "99.1" or distribution.endswith(("cu12", "cu13"))  # the plain name goes first where both are there
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert {finding.package: finding.version for finding in examine_packages()}[package] == "99.1"


def test_onnxruntime_and_onnxruntime_gpu_together_are_a_clash(tmp_path: Path) -> None:
    assert content()["warnings"] == []
    install(tmp_path, "onnxruntime-gpu", "1.31.1")
    install(tmp_path, "onnxruntime", "1.32.0")
    assert content(tmp_path)["warnings"] == [CLASH]
    assert f"warning         {CLASH}" in doctor(folder=tmp_path)


def test_onnxruntime_gpu_alone_is_an_onnxruntime_and_no_clash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "onnxruntime-gpu", "1.31.1")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    versions = {finding.package: finding.version for finding in examine_packages()}
    assert versions["onnxruntime"] == versions["onnxruntime-gpu"] == "1.31.1"
    assert versions["tensorrt"] is None
