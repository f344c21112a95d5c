"""What may stand for a classifier, and what a user is told whose words name none."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from refusals import assert_refused

from diffood import zoo
from diffood.errors import ExportError, MissingExtraError
from diffood.export.sources.classifiers.classifier import load_classifier
from diffood.export.sources.classifiers.registry import FORMS, KINDS, find_loader
from diffood.export.sources.classifiers.source import ClassifierSource


def load(spec: str, weights: Path | None = None, **options: object) -> object:
    return load_classifier(ClassifierSource(spec, weights, **options), 28, 28)  # type: ignore[arg-type]


NAMELESS = [
    ("resnet18", "'resnet18' is not one of FILE.py:FACTORY, .* Did you mean timm:resnet18 or torchvision:resnet18"),
    ("net.onnx", "Did you mean onnx:net.onnx"),
    ("timm:", "'timm:' is not one of"),
    ("keras:net", "'keras:net' is not one of"),
    ("onnx:absent.onnx", "No ONNX file absent.onnx"),
    ("transformers:absent", "absent holds no config.json"),
    ("absent.py:net", "No classifier file absent.py"),
]


def test_a_spec_that_names_nothing_is_explained() -> None:
    assert_refused(ExportError, NAMELESS, load)


def test_every_kind_of_the_registry_has_a_module_that_loads_it() -> None:
    for kind, (what, _) in KINDS.items():
        assert f"{kind}:{what}" in FORMS
        assert callable(find_loader(ClassifierSource(f"{kind}:name")))


def test_a_folder_without_its_kind_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=f"Did you mean transformers:{tmp_path}"):
        load(str(tmp_path))


def test_what_holds_its_weights_takes_no_others(tmp_path: Path) -> None:
    said = "holds its own weights: leave --classifier-weights out"
    cases = [(f"onnx:{tmp_path}", said), (f"transformers:{tmp_path}", said)]
    assert_refused(ExportError, cases, lambda spec: load(spec, zoo.CLASSIFIER_WEIGHTS))


def test_tensors_of_a_graph_are_no_words_for_a_module() -> None:
    with pytest.raises(ExportError, match="name tensors of onnx:FILE, not of"):
        load(f"{zoo.CLASSIFIER}:{zoo.FACTORY}", zoo.CLASSIFIER_WEIGHTS, logits="logits")


def test_a_library_that_is_missing_is_named_with_its_extra(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["ViTForImageClassification"]}')
    (tmp_path / "model.safetensors").touch()
    kinds = ("timm", "torchvision", "transformers")
    program = f"""
import sys
from diffood.errors import MissingExtraError
from diffood.export.sources.classifiers.classifier import load_classifier
from diffood.export.sources.classifiers.registry import FORMS, KINDS, find_loader
from diffood.export.sources.classifiers.source import ClassifierSource
for kind in {kinds}:
    sys.modules[kind] = None
    try:
        load_classifier(ClassifierSource(f"{{kind}}:{tmp_path}"), 28, 28)
    except MissingExtraError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    for kind, line in zip(kinds, done.stdout.splitlines(), strict=True):
        assert f"`{kind}:` needs {kind}, which is not installed" in line
        assert "pip install 'diffood[classifiers]'" in line


@pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is not None, reason="torchvision is installed: it is not missing here"
)
def test_without_torchvision_its_classifiers_are_not_there() -> None:
    with pytest.raises(MissingExtraError, match="torchvision"):
        load("torchvision:resnet18")


def test_the_zoos_classifier_says_what_is_done_before_it() -> None:
    found = load(f"{zoo.CLASSIFIER}:{zoo.FACTORY}", zoo.CLASSIFIER_WEIGHTS)
    assert (found.channels, found.classes, found.class_names) == (1, 10, None)  # type: ignore[attr-defined]
    assert found.prepared == "1 channels, 28x28, not normalised"  # type: ignore[attr-defined]
