"""Attack: a manifest whose latents are missing a graph, are of another shape than the graphs, or are denied."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attacks import undone
from sealed import sealed

from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.detector import Detector


@pytest.fixture
def latent_copy(dit_bundle: Bundle, tmp_path: Path) -> Path:
    """A copy of a latent bundle that a test may damage."""
    return Path(shutil.copytree(dit_bundle.path, tmp_path / "bundle"))


def refusal(folder: Path, change: Callable[[dict[str, Any]], object]) -> str:
    """The one line with which a bundle is refused after its manifest was changed."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_bytes())
    change(manifest)
    path.write_bytes(sealed(manifest))
    with pytest.raises(BundleError) as caught:
        Detector.load(open_bundle(folder), open_bundle(folder).plan("plain"), batch=2, threads=1)
    assert str(caught.value).isprintable()
    return str(caught.value)


def without(role: str) -> Callable[[dict[str, Any]], object]:
    def change(manifest: dict[str, Any]) -> None:
        manifest["graphs"] = [graph for graph in manifest["graphs"] if graph["role"] != role]

    return change


def latent(**fields: Any) -> Callable[[dict[str, Any]], object]:
    return lambda manifest: manifest["latent"].update(fields)


def swap(manifest: dict[str, Any]) -> None:
    other = {"encode": "decode", "decode": "encode"}
    for graph in manifest["graphs"]:
        graph["role"] = other.get(graph["role"], graph["role"])


def test_latents_that_do_not_fit_are_refused(latent_copy: Path, subtests: pytest.Subtests) -> None:
    for change, part in [
        (without("encode"), "has no encode graph"),
        (without("decode"), "has no decode graph"),
        (swap, "decode.onnx is not an encode graph"),
        (latent(channels=3), "is not a step_guided graph"),
        (latent(height=7), "is not a step_guided graph"),
        (latent(height=29), "latents of 29x14 are larger than the images, 28x28"),
        (latent(width=2**40), "are larger than the images"),
        (latent(channels=0), "latent.channels"),
        (latent(channels=10**9), "latent.channels"),
        (latent(height=-1), "latent.height"),
        (latent(height=14.5), "latent.height"),
        (latent(depth=1), "latent.depth"),
        (latent(origin="a\x1b[31m"), "latent.origin"),
        (lambda manifest: manifest.update(latent=[]), "latent"),
        (lambda manifest: manifest.update(latent=None), "is not a step_guided graph"),
        (lambda manifest: manifest.pop("latent"), "is not a step_guided graph"),
        (lambda manifest: manifest["image"].update(height=14, width=14), "is not a classify graph"),
    ]:
        with subtests.test(change=change, part=part), undone(latent_copy):
            assert part in refusal(latent_copy, change)


def test_latents_claimed_of_a_bundle_of_images_are_refused(victim: Path, dit_bundle: Bundle) -> None:
    assert dit_bundle.manifest.latent is not None
    entry = dit_bundle.manifest.latent.model_dump(mode="json")
    assert "is not a step_guided graph" in refusal(victim, lambda manifest: manifest.update(latent=entry))
