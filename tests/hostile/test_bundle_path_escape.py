"""Attack: a manifest whose file names lead out of the bundle's folder or hide."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("field", ["golden", "noise_levels", "graph", "files"])
def test_an_escaping_name_is_refused(bundle_copy: Path, rewrite: Rewrite, field: str, name: str) -> None:
    def change(manifest: dict[str, Any]) -> None:
        if field == "files":
            manifest["files"][name] = manifest["files"]["golden.npz"]
        elif field == "graph":
            manifest["graphs"][0]["file"] = name
        else:
            manifest[field] = name

    (bundle_copy.parent / "golden.npz").write_bytes((bundle_copy / "golden.npz").read_bytes())
    rewrite(change)
    where = {"graph": r"graphs\.0\.file"}.get(field, field)
    with pytest.raises(BundleError, match=rf"manifest\.json is invalid: {where}"):
        open_bundle(bundle_copy)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "manifest.json", "calibration.json", ""])
def test_read_gives_only_files_of_the_manifest(bundle_copy: Path, name: str) -> None:
    (bundle_copy.parent / "secret").write_bytes(b"x")
    with pytest.raises(BundleError, match="is not among the manifest's files"):
        open_bundle(bundle_copy).read(name)


def test_a_graph_outside_the_manifests_files_is_refused_when_read(bundle_copy: Path, rewrite: Rewrite) -> None:
    (bundle_copy / "planted.onnx").write_bytes((bundle_copy / "classify.onnx").read_bytes())
    rewrite(lambda manifest: manifest["graphs"][0].update({"file": "planted.onnx"}))
    bundle = open_bundle(bundle_copy)
    with pytest.raises(BundleError, match=r"'planted\.onnx' is not among the manifest's files"):
        bundle.read(bundle.graph("classify").file)
