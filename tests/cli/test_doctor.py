"""diffood doctor: what it names, what it sends the user to install, and the clash of two packages in one folder."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffood.cli.doctor import CLASH, PACKAGES, examine_packages
from diffood.runtime.backends import BACKENDS

Run = Callable[..., Any]  # gives conftest.Done
EXTRAS = {
    "onnxruntime-gpu": "diffood[gpu]",
    "tensorrt": "diffood[tensorrt]",
    "tensorrt-rtx": "diffood[tensorrt-rtx]",
    "cuda-bindings": "diffood[tensorrt]",
    "polygraphy": "diffood[tensorrt]",
    "pyarrow": "diffood[parquet]",
    "matplotlib": "diffood[pictures]",
    "jinja2": "diffood[report]",
    "torch": "diffood[export]",
}


def install(folder: Path, name: str, version: str) -> None:
    """What an installer leaves for importlib.metadata to find."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_every_optional_package_is_named_with_what_installs_it() -> None:
    found = {finding.package: finding for finding in examine_packages()}
    assert found.keys() == PACKAGES.keys()
    for package, extra in EXTRAS.items():
        assert f"pip install '{extra}'" in found[package].install
        assert found[package].purpose


def test_gpu_and_backends_are_reported_with_their_reasons(start: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # seen by new processes
    done, machine = start("doctor"), start("doctor", "--json").content
    assert (done.code, done.err) == (0, "")
    assert machine["device"] is None
    assert [entry["backend"] for entry in machine["backends"]] == list(BACKENDS)
    assert [entry["usable"] for entry in machine["backends"]] == [False, False, False, False, True]
    for entry in machine["backends"]:
        assert f"backend         {entry['backend']} {'can run' if entry['usable'] else 'cannot run'}: " in done.out
        assert entry["reason"] in done.out
    assert "\nGPU             none: " in done.out
    assert all(f"\n{package:<16}" in done.out for package in PACKAGES)
    assert "CPUExecutionProvider" in machine["providers"]
    packages = {entry["package"]: entry for entry in machine["packages"]}
    assert packages["onnxruntime"]["version"]
    assert packages["torch"]["install"] == "pip install 'diffood[export]'"


def test_a_package_is_known_by_every_name_it_is_installed_under(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for distribution, package in (
        ("tensorrt", "tensorrt"),
        ("tensorrt-cu12", "tensorrt"),
        ("tensorrt_cu13", "tensorrt"),
        ("tensorrt_rtx", "tensorrt-rtx"),
        ("tensorrt-rtx-cu13", "tensorrt-rtx"),
        ("onnxruntime-gpu", "onnxruntime-gpu"),
        ("cuda-bindings", "cuda-bindings"),
    ):
        folder = tmp_path / distribution
        install(folder, distribution, "99.1")
        monkeypatch.setattr(sys, "path", [str(folder)])
        assert {found.package: found.version for found in examine_packages()}[package] == "99.1", distribution


def test_onnxruntime_and_onnxruntime_gpu_together_are_a_clash(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("doctor", "--json").content["warnings"] == []
    install(tmp_path, "onnxruntime-gpu", "1.31.1")
    install(tmp_path, "onnxruntime", "1.32.0")
    monkeypatch.syspath_prepend(tmp_path)
    assert run("doctor", "--json").content["warnings"] == [CLASH]
    assert f"warning         {CLASH}" in run("doctor").out


def test_onnxruntime_gpu_alone_is_an_onnxruntime_and_no_clash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "onnxruntime-gpu", "1.31.1")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    versions = {found.package: found.version for found in examine_packages()}
    assert versions["onnxruntime"] == versions["onnxruntime-gpu"] == "1.31.1"
    assert versions["tensorrt"] is None
