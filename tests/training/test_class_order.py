"""An export compares the classes a UNet was trained with to the classifier's."""

import shutil
from pathlib import Path

import pytest
from small_models import CLASSIFIER, CLASSIFIER_WEIGHTS, FACTORY, UNET

from diffood.errors import ExportError
from diffood.export.request import ExportRequest
from diffood.export.sources.classifiers.source import ClassifierSource
from diffood.export.sources.model_sources import ModelSources
from diffood.zoo import CLASS_NAMES

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from diffood.export.build import export_bundle


def test_a_unet_with_classes_in_another_order_is_refused(tmp_path: Path) -> None:
    unet = Path(shutil.copytree(UNET, tmp_path / "unet"))
    names = tuple(CLASS_NAMES.read_text().split("\n")[:10])
    (unet / "class_names.txt").write_text("\n".join([names[0], names[2], names[1], *names[3:]]) + "\n")
    classifier = ClassifierSource(f"{CLASSIFIER}:{FACTORY}", CLASSIFIER_WEIGHTS)
    request = ExportRequest(tmp_path / "bundle", ModelSources(unet, classifier, class_names=names))
    with pytest.raises(ExportError, match=f"'{names[2]}' is class 1 of the UNet and class 2 of the classifier"):
        export_bundle(request, print)
    assert not (tmp_path / "bundle").exists()
