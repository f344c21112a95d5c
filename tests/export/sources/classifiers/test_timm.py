"""timm:NAME with weights made from a local file: equal to timm, prepared as timm's own transform prepares."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm", reason="needs timm, of the extra `classifiers`", exc_type=Exception)
from named_networks import run_unconnected
from safetensors.torch import save_file

from diffood.errors import ExportError
from diffood.export.graphs.modules import PrepareImages
from diffood.export.sources.classifiers.classifier import Classifier, load_classifier
from diffood.export.sources.classifiers.source import ClassifierSource


def weights_of(name: str, folder: Path, **settings: int) -> tuple[torch.nn.Module, Path]:
    """A seeded network of timm's and a file of its weights."""
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, **settings).eval()
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / "net.safetensors")
    return model, folder / "net.safetensors"


def load(name: str, weights: Path | None, **options: object) -> Classifier:
    return load_classifier(ClassifierSource(f"timm:{name}", weights, **options), 64, 64)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "settings", "features"),
    [
        ("resnet18", {}, "its last linear layer, fc"),
        ("resnet10t.c3_in1k", {"num_classes": 7}, "its last linear layer, fc"),
        ("mobilenetv3_small_050", {"num_classes": 4, "in_chans": 1}, "its last linear layer, classifier"),
        ("vit_tiny_patch16_224", {"num_classes": 3}, "its last linear layer, head"),
        ("convnext_atto", {"num_classes": 5}, "its last linear layer, head.fc"),
    ],
)
def test_a_network_filled_from_a_file_equals_timms(
    tmp_path: Path, name: str, settings: dict[str, int], features: str
) -> None:
    model, weights = weights_of(name, tmp_path, **settings)
    found = load(name, weights)
    assert found.classes == settings.get("num_classes", 1000)
    assert found.channels == settings.get("in_chans", 3)
    assert features in found.features_from
    height, width = found.preprocessing.size or (0, 0)
    x = torch.rand(2, found.channels, height, width, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits, penultimate = found.model(x)
        assert torch.allclose(logits, model(x), atol=1e-5)
        expected = model.forward_head(model.forward_features(x), pre_logits=True)
        assert torch.allclose(penultimate, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", "resnet18.a1_in1k", "vit_tiny_patch16_224", "tf_efficientnet_lite0"])
@pytest.mark.parametrize("size", [(64, 64), (300, 260)])
def test_images_are_prepared_as_timms_transform_prepares_them(tmp_path: Path, name: str, size: tuple[int, int]) -> None:
    model, weights = weights_of(name, tmp_path)
    found = load(name, weights)
    draw = np.random.default_rng(0)
    blocks = draw.integers(60, 196, (size[0] // 10, size[1] // 10, 3), np.uint8)
    picture = Image.fromarray(blocks).resize(size[::-1], Image.Resampling.BICUBIC)
    config = timm.data.resolve_model_data_config(model)
    expected = timm.data.create_transform(**config, is_training=False)(picture)
    x = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 127.5 - 1
    made = PrepareImages(found, 3, *size)(x)[0]
    levels = (made - expected).abs().amax((1, 2)) * torch.tensor(config["std"]) * 255
    assert levels.max() < 2.5  # timm rounds to 8 bits after the resize, twice
    assert f"mean {', '.join(f'{value:.4g}' for value in config['mean'])}" in found.prepared
    assert "timm's config" in found.prepared


def test_classes_are_named_where_timm_knows_them(tmp_path: Path) -> None:
    _, weights = weights_of("resnet18", tmp_path)
    found = load("resnet18", weights)
    assert found.class_names is not None
    assert found.class_names[0].startswith("tench")
    assert "imagenet-1k" in found.notes[0]
    _, weights = weights_of("resnet18", tmp_path, num_classes=7)
    assert load("resnet18", weights).class_names is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet81", "timm has no classifier 'resnet81'. Did you mean .*resnet18"),
        ("hf-hub:timm/resnet18", "timm has no classifier 'hf-hub:timm/resnet18'"),
        ("resnet18.nonsense", "nonsense"),
        ("resnet18", "needs its weights: give --classifier-weights FILE, or --download"),
    ],
)
def test_a_name_that_cannot_be_loaded_is_explained(name: str, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        load(name, None)


def test_weights_of_another_network_are_explained(tmp_path: Path) -> None:
    _, weights = weights_of("resnet10t", tmp_path)
    said = r"net\.safetensors does not fit timm resnet18: 'conv1.weight' and \d+ more are missing"
    with pytest.raises(ExportError, match=said):
        load("resnet18", weights)


def test_nothing_is_fetched_unless_asked(tmp_path: Path) -> None:
    _, weights = weights_of("resnet10t", tmp_path)
    out = run_unconnected(f"""
load_classifier(ClassifierSource("timm:resnet10t", Path({str(weights)!r})), 64, 64)
assert not asked, asked
try:
    load_classifier(ClassifierSource("timm:resnet10t", download=True), 64, 64)
except DiffoodError as error:
    print(error)
assert asked
""")
    assert "The weights of timm:resnet10t cannot be fetched" in out
    assert "give it by --classifier-weights" in out
