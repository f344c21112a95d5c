"""Attack: a manifest that names another file's hash, or a file that was swapped with another of the bundle."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attacks import undone

from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import open_bundle

Rewrite = Callable[[Callable[[dict[str, Any]], object]], None]


def test_the_hash_of_another_file_is_refused(victim: Path, rewrite: Rewrite) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["files"]["classify.onnx"]["sha256"] = manifest["files"]["golden.npz"]["sha256"]

    rewrite(change)
    with pytest.raises(BundleError, match=r"classify\.onnx was changed after export"):
        open_bundle(victim)


def test_two_swapped_graphs_are_refused(victim: Path) -> None:
    plain, guided = victim / "step_plain.onnx", victim / "step_guided.onnx"
    plain_bytes, guided_bytes = plain.read_bytes(), guided.read_bytes()
    plain.write_bytes(guided_bytes)
    guided.write_bytes(plain_bytes)
    with pytest.raises(BundleError, match="step_"):
        open_bundle(victim)


def test_what_is_no_hash_is_refused(victim: Path, rewrite: Rewrite, subtests: pytest.Subtests) -> None:
    for value in ["", "0" * 63, "0" * 65, "G" * 64, "A" * 64, "0" * 64 + "\n", None, 0]:
        with subtests.test(value=value), undone(victim):
            rewrite(lambda manifest: manifest["files"]["golden.npz"].update({"sha256": value}))
            with pytest.raises(BundleError, match=r"files\.golden\.npz\.sha256"):
                open_bundle(victim)
