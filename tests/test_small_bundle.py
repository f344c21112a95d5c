"""The small bundle of the tests is a real one: its classifier classifies, its scores tell clothes from textures."""

import shutil
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from diffood.calibration.calibrate import calibrate_files
from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.detector import Detector
from diffood.runtime.inputs.open import list_inputs
from diffood.zoo.images import load_set


def test_it_is_exchanged_for_the_zoo(small_bundle: Bundle, zoo_bundle: Bundle) -> None:
    small, zoo = small_bundle.manifest, zoo_bundle.manifest
    assert (small.image, small.class_names, small.unet.labels) == (zoo.image, zoo.class_names, zoo.unet.labels)
    assert [(graph.role, graph.precision) for graph in small.graphs] == [
        (graph.role, graph.precision) for graph in zoo.graphs
    ]
    assert sum(path.stat().st_size for path in small_bundle.path.iterdir()) < 250_000


def test_its_verdicts_are_those_of_trained_models(small_bundle: Bundle) -> None:
    clothes = load_set("fashion-test")
    detector = Detector.load(small_bundle, small_bundle.plan("plain"), threads=1)
    inside = detector.score(clothes.images[:100])
    outside = detector.score(load_set("textures").images[:100])
    assert (inside.predicted == clothes.labels[:100]).mean() > 0.7  # ten classes: chance is 0.1
    assert len(np.unique(inside.score)) == 100
    assert roc_auc_score([0] * 100 + [1] * 100, [*inside.score, *outside.score]) > 0.65


def test_it_calibrates_with_all_witnesses(small_bundle: Bundle, clothes_folder: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(small_bundle.path, tmp_path / "bundle"))
    detector = Detector.load(open_bundle(path), small_bundle.plan(), threads=1)
    calibrate_files(detector, list_inputs([str(clothes_folder)]), 0.1, 0.95, "pac").save()
    calibrated = Detector.open(path, threads=1)
    inside, outside = (calibrated.score(load_set(name).images[:100]).score for name in ("fashion-test", "textures"))
    threshold = calibrated.calibration().threshold
    assert (inside > threshold).mean() < 0.1
    assert (outside > threshold).mean() > 0.3
    assert roc_auc_score([0] * 100 + [1] * 100, [*inside, *outside]) > 0.8
