"""The committed exported bundles are what export writes of their models today; make_exported.py makes them anew."""

import itertools
import re
from pathlib import Path
from typing import Any

import exported
import latent_models
import numpy as np
import pytest

from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.detector import Detector

latent_models.need_export()

from make_exported import MAKERS, export_again

TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2}  # of scores: what another release of torch or ONNX Runtime may round otherwise


def without_rounding(lines: list[str]) -> list[str]:
    """Lines of a report without the errors that were found, and megabytes."""
    return [re.sub(r"within \S+|\S+ MB", "…", line) for line in lines]


def described(bundle: Bundle) -> dict[str, Any]:
    """What the manifest says but for hashes of files, versions of libraries and errors that were found."""
    content = bundle.manifest.model_dump(mode="json", exclude={"files", "versions"})
    for graph in content["graphs"]:
        del graph["error"]
    return content | {"files": sorted(bundle.manifest.files)}


@pytest.mark.slow
def test_the_committed_bundle_is_what_export_writes(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for name in MAKERS:
        with subtests.test(name=name):
            lines = export_again(name, tmp_path / name)
            written, committed = (
                open_bundle(tmp_path / name),
                exported.copy_exported(name, tmp_path / f"{name}-committed"),
            )
            assert without_rounding(lines) == without_rounding(exported.lines_of(name))
            assert described(written) == described(committed)
            image = written.manifest.image
            shape = (3, image.channels, image.height, image.width)
            pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
            plain, default = written.plan("plain"), written.plan("default")
            for precision, guidance in itertools.product(written.precisions, {0.0, default.guidance}):
                plan = plain.changed({"guidance": guidance, "space": "features"})
                found, wanted = (
                    Detector.load(bundle, plan, precision=precision, batch=4, threads=1).score(pixels)
                    for bundle in (written, committed)
                )
                np.testing.assert_allclose(found.by_start, wanted.by_start, rtol=TOLERANCE[precision], atol=1e-4)


def test_the_committed_files_are_bundles_without_detector_files(subtests: pytest.Subtests, tmp_path: Path) -> None:
    for name in MAKERS:
        with subtests.test(name=name):
            folder = exported.EXPORTED / name / exported.BUNDLE
            bundle = exported.copy_exported(name, tmp_path / name)
            assembled = {file.name for file in bundle.path.iterdir()} - {file.name for file in folder.iterdir()}
            assert assembled >= {"detector.json", "detector.onnx"}
            assert all(file.startswith("detector.") for file in assembled)
            assert sum(file.stat().st_size for file in folder.iterdir()) < 500_000
