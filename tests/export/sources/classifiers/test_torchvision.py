"""torchvision:NAME with weights made from a local file: equal to torchvision, prepared as its own transform does."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision", reason="needs torchvision, of `classifiers`", exc_type=Exception)
from named_networks import run_unconnected

from diffood.errors import ExportError
from diffood.export.sources.classifiers.classifier import Classifier, load_classifier
from diffood.export.sources.classifiers.source import ClassifierSource


def weights_of(name: str, file: Path, **settings: object) -> tuple[torch.nn.Module, Path]:
    """A seeded network of torchvision's and a file of its weights, as torch.save writes it."""
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None, **settings).eval()
    torch.save(model.state_dict(), file)
    return model, file


def load(name: str, weights: Path | None, **options: object) -> Classifier:
    return load_classifier(ClassifierSource(f"torchvision:{name}", weights, **options), 64, 64)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "settings", "features", "count"),
    [
        ("resnet18", {"num_classes": 7}, "its last linear layer, fc", 512),
        ("squeezenet1_1", {"num_classes": 4}, "its last convolution, classifier.1, the mean over its 13x13", 512),
        ("mobilenet_v3_small", {}, "its last linear layer, classifier.3", 1024),
        ("googlenet", {"init_weights": False, "transform_input": True}, "its last linear layer, fc", 1024),
    ],
)
def test_a_network_filled_from_a_file_equals_torchvisions(
    tmp_path: Path, name: str, settings: dict[str, object], features: str, count: int
) -> None:
    model, weights = weights_of(name, tmp_path / "net.pth", **settings)
    found = load(name, weights)
    assert (found.classes, found.features) == (settings.get("num_classes", 1000), count)
    assert features in found.features_from
    assert (found.class_names is None) == ("num_classes" in settings)
    height, width = found.preprocessing.size or (0, 0)
    x = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.allclose(found.model(x)[0], model(x), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("resnet50", "IMAGENET1K_V1"),
        ("resnet50", "IMAGENET1K_V2"),
        ("efficientnet_b1", "IMAGENET1K_V1"),
        ("vit_b_16", "IMAGENET1K_SWAG_LINEAR_V1"),
    ],
)
@pytest.mark.parametrize("size", [(64, 64), (300, 260)])
def test_images_are_prepared_as_the_weights_own_transform_prepares_them(
    name: str, entry: str, size: tuple[int, int]
) -> None:
    from diffood.export.sources.classifiers.torchvision import read_transforms

    weights = torchvision.models.get_model_weights(name)[entry]
    prepared = read_transforms(weights.transforms())
    draw = np.random.default_rng(0)
    blocks = draw.integers(60, 196, (size[0] // 10, size[1] // 10, 3), np.uint8)
    picture = np.array(Image.fromarray(blocks).resize(size[::-1], Image.Resampling.BICUBIC))
    x = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255
    rows, columns = prepared.matrices(*size) or (np.eye(size[0]), np.eye(size[1]))
    mean, std = (torch.tensor(values)[:, None, None] for values in (prepared.mean, prepared.std))
    made = (torch.from_numpy(rows) @ x @ torch.from_numpy(columns) - mean) / std
    assert (made - weights.transforms()(x)).abs().max() < 1e-4


def test_a_file_of_torchvisions_own_is_known_by_its_name(tmp_path: Path) -> None:
    _, weights = weights_of("resnet18", tmp_path / "resnet18-f37072fd.pth")
    found = load("resnet18", weights)
    assert "ResNet18_Weights.IMAGENET1K_V1" in found.prepared
    assert not found.notes
    _, weights = weights_of("resnet18", tmp_path / "mine.pth")
    assert "is assumed" in load("resnet18", weights).notes[0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet81", "torchvision has no classifier 'resnet81'. Did you mean .*resnet18"),
        ("fcn_resnet50", "torchvision has no classifier 'fcn_resnet50'"),
        ("resnet50.IMAGENET1K_V9", "ResNet50_Weights has no .*IMAGENET1K_V9.*Did you mean IMAGENET1K_V"),
        ("resnet18", "needs its weights: give --classifier-weights FILE, or --download"),
    ],
)
def test_a_name_that_cannot_be_loaded_is_explained(name: str, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        load(name, None)


def test_nothing_is_fetched_unless_asked(tmp_path: Path) -> None:
    _, weights = weights_of("squeezenet1_1", tmp_path / "net.pth")
    out = run_unconnected(f"""
import os
os.environ["TORCH_HOME"] = {str(tmp_path)!r}
load_classifier(ClassifierSource("torchvision:squeezenet1_1", Path({str(weights)!r})), 64, 64)
assert not asked, asked
try:
    load_classifier(ClassifierSource("torchvision:squeezenet1_1", download=True), 64, 64)
except DiffoodError as error:
    print(error)
assert asked
""")
    assert "The weights of torchvision:squeezenet1_1 cannot be fetched" in out


def test_files_of_densenet_from_before_its_names_changed_are_read(tmp_path: Path) -> None:
    """As torchvision's own densenet121-a639ec97.pth: `norm.1`, and no counters of batches."""
    model, weights = weights_of("densenet121", tmp_path / "net.pth", num_classes=4)
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", name): value
        for name, value in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, weights)
    found = load("densenet121", weights)
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(found.model(x)[0], model(x))


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_heads_may_be_there_or_not(tmp_path: Path, name: str) -> None:
    settings = {"init_weights": False, "transform_input": True, "num_classes": 5}
    for auxiliary in (True, False):
        model, weights = weights_of(name, tmp_path / "net.pth", aux_logits=auxiliary, **settings)
        found = load(name, weights)
        assert found.classes == 5
        x = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            assert torch.equal(found.model(x)[0], model(x))


def test_a_training_scripts_checkpoint_gives_its_averages(tmp_path: Path) -> None:
    """As torchvision's references/classification saves it."""
    plain, weights = weights_of("resnet18", tmp_path / "net.pth", num_classes=3)
    average = torch.optim.swa_utils.AveragedModel(plain)
    with torch.no_grad():
        plain.fc.weight += 1
    torch.save({"model": plain.state_dict(), "model_ema": average.state_dict(), "epoch": 3}, weights)
    found = load("resnet18", weights)
    assert found.notes[0] == "net.pth: its averaged weights are taken, 'model_ema', not 'model'"
    assert found.classes == 3
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(found.model(x)[0], average.module(x))
