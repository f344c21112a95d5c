"""Attack: a manifest whose file names lead out of the bundle's folder or hide."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attacks import undone

from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import open_bundle

Rewrite = Callable[[Callable[[dict[str, Any]], object]], None]

NAMES = [
    "../golden.npz",
    "..",
    ".",
    "",
    "sub/golden.npz",
    "/etc/hostname",
    "..\\golden.npz",
    "C:\\golden.npz",
    "C:golden.npz",
    "golden.npz\0.txt",
    "golden.npz\n",
    ".golden.npz",
    "-golden.npz",
    "golden.npz:stream",
    "~",
    "göldén.npz",
    "golden\u2215npz",
    "a" * 101,
]


def test_an_escaping_name_is_refused(victim: Path, rewrite: Rewrite, subtests: pytest.Subtests) -> None:
    for name, field in itertools.product(NAMES, ["golden", "noise_levels", "graph", "files"]):
        with subtests.test(name=name, field=field), undone(victim):

            def change(manifest: dict[str, Any]) -> None:
                if field == "files":
                    manifest["files"][name] = manifest["files"]["golden.npz"]
                elif field == "graph":
                    manifest["graphs"][0]["file"] = name
                else:
                    manifest[field] = name

            (victim.parent / "golden.npz").write_bytes((victim / "golden.npz").read_bytes())
            rewrite(change)
            where = {"graph": r"graphs\.0\.file"}.get(field, field)
            with pytest.raises(BundleError, match=rf"manifest\.json is invalid: {where}"):
                open_bundle(victim)


def test_read_gives_only_files_of_the_manifest(victim: Path, subtests: pytest.Subtests) -> None:
    for name in ["../secret", "/etc/hostname", "manifest.json", "calibration.json", ""]:
        with subtests.test(name=name), undone(victim):
            (victim.parent / "secret").write_bytes(b"x")
            with pytest.raises(BundleError, match="is not among the manifest's files"):
                open_bundle(victim).read(name)


def test_a_graph_outside_the_manifests_files_is_refused_when_read(victim: Path, rewrite: Rewrite) -> None:
    (victim / "planted.onnx").write_bytes((victim / "classify.onnx").read_bytes())
    rewrite(lambda manifest: manifest["graphs"][0].update({"file": "planted.onnx"}))
    bundle = open_bundle(victim)
    with pytest.raises(BundleError, match=r"'planted\.onnx' is not among the manifest's files"):
        bundle.read(bundle.graph("classify").file)
