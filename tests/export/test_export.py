"""Exporting small random models: what a bundle must hold, and what must make an export fail."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
onnx = pytest.importorskip("onnx")

from PIL import Image
from refusals import assert_refused
from small_unets import ONE_LEVEL, small_unet

from diffood import zoo
from diffood.errors import ExportError, UsageError
from diffood.export.build import PLANS, affordable_plans, export_bundle
from diffood.export.first_look import look_at_images
from diffood.export.graphs.normalisation import fused_group_norms
from diffood.export.onnx.proof import OPSET, export_onnx, prove_equal, prove_structure, run_torch
from diffood.export.request import ExportRequest
from diffood.export.sources.classifiers.classifier import load_classifier
from diffood.export.sources.classifiers.preprocessing import Preprocessing
from diffood.export.sources.classifiers.source import ClassifierSource
from diffood.export.sources.model_sources import ModelSources
from diffood.export.sources.unets.unet import UNet
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.bundle.detectors import read_detector
from diffood.runtime.bundle.trained import TRAINED, load_trained, pack_trained, shorten
from diffood.runtime.detector import Detector
from diffood.runtime.golden import GOLDEN_IMAGES, observe_reference, read_golden
from diffood.runtime.images.pixels import from_pixels

RESIZED = Preprocessing((12, 10), (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
FACTORIES = '''
import torch
from torch import nn

class LogitsOnly(nn.Module):
    """RGB, any size, returns logits alone; its features are the input of `head`."""
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.side = nn.Linear(6, 6)
        self.head = nn.Linear(6, 3)
    def forward(self, x):
        return self.head(torch.relu(self.side(torch.relu(self.conv(x)).mean((2, 3)))))

def logits_only():
    torch.manual_seed(0)
    return LogitsOnly()

def grey_with_features():
    torch.manual_seed(0)
    class Grey(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 6, 3), nn.Linear(6, 3)
        def forward(self, x):
            features = self.conv(x).mean((2, 3))
            return self.head(features), features
    return Grey()

def softmaxed():
    torch.manual_seed(0)
    return nn.Sequential(LogitsOnly(), nn.Softmax(1))

def constant_logits():
    """As a mean of 127.5 would have it: the bias decides."""
    torch.manual_seed(0)
    model = LogitsOnly()
    model.head.weight.data *= 1e-4
    return model

def sigmoids():
    torch.manual_seed(0)
    class Several(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 6, 3), nn.Linear(6, 3)
        def forward(self, x):
            features = self.conv(x).mean((2, 3))
            return torch.sigmoid(self.head(features)).clamp(0.01, 0.99), features
    return Several()

def not_a_module():
    return 7

def broken():
    raise RuntimeError("no such checkpoint")
'''


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with unet/ (3 classes and null), scheduler/ (40 steps) and factories.py."""
    folder = tmp_path_factory.mktemp("models")
    small_unet(**ONE_LEVEL).save_pretrained(folder / "unet", safe_serialization=True)
    diffusers.DDPMScheduler(num_train_timesteps=40).save_pretrained(folder / "scheduler")
    (folder / "factories.py").write_text(FACTORIES)
    (folder / "unet" / TRAINED).write_bytes(pack_trained(shorten(["0a" * 32, "f0" * 32])))
    return folder


def sources_of(
    models: Path, factory: str, weights: Path | None = None, class_names: tuple[str, ...] | None = None
) -> ModelSources:
    """The small UNet with a classifier of `factory`, which takes images of another size."""
    prepared = Preprocessing((12, 10), (0.5,), (0.3,)) if factory.startswith("grey") else RESIZED
    classifier = ClassifierSource(f"{models / 'factories.py'}:{factory}", weights, prepared)
    return ModelSources(models / "unet", classifier, class_names=class_names)


@pytest.fixture(scope="module")
def exported(models: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A bundle of the small UNet and an RGB classifier of another size that returns logits alone; and its report."""
    lines: list[str] = []
    output = tmp_path_factory.mktemp("out") / "bundle"
    sources = sources_of(models, "logits_only", class_names=("a", "b", "c"))
    export_bundle(ExportRequest(output, sources), lines.append)
    return output, lines


def test_what_the_unet_was_trained_on_goes_into_the_bundle(exported: tuple[Path, list[str]]) -> None:
    assert load_trained(open_bundle(exported[0])) == {"0a" * 8, "f0" * 8}


def test_a_factory_that_ends_in_softmax_gives_its_logits(models: Path) -> None:
    plain, ended = (load_classifier(sources_of(models, name).classifier, 8, 8) for name in ("logits_only", "softmaxed"))
    x = torch.rand(3, 3, 12, 10, generator=torch.Generator().manual_seed(0))
    assert all(torch.equal(got, want) for got, want in zip(ended.model(x), plain.model(x), strict=True))
    assert ended.notes == ("it ends in softmax: its logits are what goes into that, the output of its layer 0.head",)


def test_the_classifier_is_tried_on_images_before_any_graph_is_made(models: Path, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for index in range(20):
        Image.fromarray(draw.integers(0, 256, (8, 8), np.uint8)).save(tmp_path / f"{index}.png")
    source = replace(sources_of(models, "constant_logits"), class_names=("a", "b", "c"))
    request = ExportRequest(tmp_path / "bundle", source, images=(str(tmp_path),))
    with pytest.raises(ExportError, match=r"constant_logits gives nearly the same logits for all of 20 images.*0..255"):
        export_bundle(request, lambda _: None)
    assert not (tmp_path / "bundle").exists()
    lines: list[str] = []
    classifier = load_classifier(sources_of(models, "logits_only").classifier, 8, 8)
    look_at_images(classifier, draw.integers(0, 256, (20, 1, 8, 8), np.uint8), ("a", "b", "c"), lines.append)
    assert lines[0].startswith("predicted   on 20 images: ")


def test_a_graph_that_makes_probabilities_is_refused(models: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"sigmoids gives probabilities: its graph ends in Sigmoid.*return them"):
        export_bundle(ExportRequest(tmp_path / "bundle", sources_of(models, "sigmoids")), lambda _: None)
    assert list(tmp_path.iterdir()) == []


def test_graphs_have_a_dynamic_batch_and_the_promised_opset(exported: tuple[Path, list[str]]) -> None:
    for file in sorted(exported[0].glob("*.onnx")):
        model = onnx.load(file)
        assert {entry.domain: entry.version for entry in model.opset_import}[""] == OPSET
        for value in (*model.graph.input, *model.graph.output):
            assert value.type.tensor_type.shape.dim[0].dim_param, (file.name, value.name)
        assert not [t for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]


def test_graphs_say_nothing_of_the_machine_that_exported(exported: tuple[Path, list[str]], models: Path) -> None:
    here = (str(models), str(Path(torch.__file__).parent), str(Path(__file__).parents[2]))
    for file in (*exported[0].glob("*.onnx"), *zoo.BUNDLE.glob("*.onnx")):
        data = file.read_bytes()
        assert b"stack_trace" not in data, file
        assert not [place for place in here if place.encode() in data], file


def test_manifest_says_what_was_exported(exported: tuple[Path, list[str]]) -> None:
    manifest = open_bundle(exported[0]).manifest
    assert manifest.class_names == ("a", "b", "c")
    assert (manifest.unet.labels, manifest.unet.label_count) == ("class+null", 4)
    assert {graph.role for graph in manifest.graphs} == {"classify", "step_plain", "step_guided"}
    assert max(manifest.plans["reference"].start_times) < 40  # scaled from 1,000 training steps
    assert any("the input of its last linear layer, head" in line for line in exported[1])


def test_the_detector_file_has_the_default_plan(exported: tuple[Path, list[str]]) -> None:
    bundle = open_bundle(exported[0])
    found = read_detector(bundle, "fp32")
    assert (found.plan, found.entry.calibrated) == (bundle.plan(), False)


def test_classify_graph_resizes_and_normalises_inside(exported: tuple[Path, list[str]], models: Path) -> None:
    namespace: dict[str, object] = {}
    exec(FACTORIES, namespace)
    model = namespace["logits_only"]().eval()  # type: ignore[operator]
    pixels = np.random.default_rng(1).integers(0, 256, (3, 1, 8, 8), np.uint8)
    x = torch.from_numpy(from_pixels(pixels))
    image = torch.nn.functional.interpolate((x + 1) / 2, (12, 10), mode="bilinear", antialias=True).repeat(1, 3, 1, 1)
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.4])
    with torch.no_grad():
        expected = model((image - mean[:, None, None]) / std[:, None, None]).numpy()
    bundle = open_bundle(exported[0])
    detector = Detector.load(bundle, bundle.plan("fast"), batch=2, threads=1)
    found = [evidence for _, evidence in detector.observe(enumerate(pixels))]
    assert np.abs(np.stack([one.logits for one in found]) - expected).max() < 1e-5
    assert found[0].features.shape == (6,)


def test_golden_values_are_of_every_plan_and_what_the_detector_gives(exported: tuple[Path, list[str]]) -> None:
    bundle = open_bundle(exported[0])
    golden = read_golden(bundle)
    assert {name: run.plan for name, run in golden.runs.items()} == bundle.manifest.plans
    assert golden.image.shape == (GOLDEN_IMAGES, 1, 8, 8)
    for name, run in golden.runs.items():
        found = observe_reference(bundle, bundle.plan(name), golden.image)
        assert {output: value.tolist() for output, value in found.items()} == {
            output: value.tolist() for output, value in run.outputs.items()
        }


def test_plans_that_cost_more_than_a_proof_have_no_golden_values_but_every_graph_has_some() -> None:
    unet = UNet(torch.nn.Identity(), 1, 8, 8, 0, "none", "0" * 64)
    for operations, plans in (
        (10**10, ["default", "fast", "plain", "reference"]),
        (10**12, ["default", "fast", "plain"]),  # a reference pass has 288 evaluations
        (10**18, ["default", "fast"]),
    ):
        assert affordable_plans(unet, PLANS, operations) == plans


def test_a_group_norm_is_written_fused_and_equal(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for opset, size in [(18, (6, 5)), (21, (6,)), (21, ())]:
        with subtests.test(opset=opset, size=size):
            draw = torch.Generator().manual_seed(0)
            norm = torch.nn.GroupNorm(4, 12, eps=1e-3)
            norm.weight.data, norm.bias.data = (torch.randn(12, generator=draw) for _ in range(2))
            module = torch.nn.Sequential(norm).eval()
            x = 3 + 2 * torch.randn(5, 12, *size, generator=draw)
            with fused_group_norms(module):
                export_onnx(module, {"input": x}, ("y",), tmp_path / "norm.onnx", opset)
            assert module[0] is norm
            kinds = {node.op_type for node in onnx.load(tmp_path / "norm.onnx").graph.node}
            assert kinds <= {"InstanceNormalization", "BatchNormalization", "Reshape"}
            sample = {"input": x}
            assert prove_equal(
                lambda _: [module(x).detach().numpy()], tmp_path / "norm.onnx", ("y",), iter([sample]), 1e-5
            )


class FrozenBatch(torch.nn.Module):
    """Depends on the batch it was exported with."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(2, -1).sum(1, keepdim=True)


def test_a_frozen_batch_fails_the_export(tmp_path: Path) -> None:
    with pytest.raises(ExportError):
        export_onnx(FrozenBatch(), {"x": torch.zeros(2, 3)}, ("y",), tmp_path / "frozen.onnx")


def test_a_saved_graph_with_a_fixed_batch_fails_its_proof(exported: tuple[Path, list[str]], tmp_path: Path) -> None:
    model = onnx.load(exported[0] / "classify.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, tmp_path / "classify.onnx")
    with pytest.raises(ExportError, match="froze at 1"):
        prove_structure(tmp_path / "classify.onnx", ("x",), ("logits", "features"))


def test_other_outputs_than_torchs_fail_the_export(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 2))
    path = tmp_path / "linear.onnx"
    export_onnx(module, {"input": torch.zeros(2, 3)}, ("y",), path)

    class Pair(torch.nn.Module):
        def forward(self, input: torch.Tensor) -> tuple[torch.Tensor]:  # noqa: A002 - the graph's name
            return (module(input),)

    sample = {"input": torch.ones(5, 3)}
    assert prove_equal(run_torch(Pair()), path, ("y",), iter([sample]), 1e-4).rows == 5
    with torch.no_grad():
        module[0].bias += 1e-3
    with pytest.raises(ExportError, match="differs from torch"):
        prove_equal(run_torch(Pair()), path, ("y",), iter([sample]), 1e-4)


def test_a_model_that_gives_nan_is_told_from_a_wrong_graph(tmp_path: Path) -> None:
    x = {"input": torch.ones(2, 3)}
    export_onnx(torch.nn.Linear(3, 2), x, ("y",), tmp_path / "net.onnx")
    gives = np.array([[1, np.nan], [1, 1]], np.float32)
    with pytest.raises(ExportError, match=r"model of net\.onnx itself gives NaN or infinity in y, batch 2"):
        prove_equal(lambda _: [gives], tmp_path / "net.onnx", ("y",), iter([x]), 1e-4)


def test_a_bad_factory_is_explained(models: Path, tmp_path: Path) -> None:
    cases = [
        ("not_a_module", "not a torch.nn.Module"),
        ("broken", "no such checkpoint"),
        ("missing", "no usable factory"),
    ]

    def export(factory: str) -> None:
        export_bundle(ExportRequest(tmp_path / "bundle", sources_of(models, factory)), print)

    assert_refused(ExportError, cases, export)
    assert not list(tmp_path.iterdir())


def test_a_pickle_is_refused_unopened(models: Path, tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(b"cos\nsystem\n(S'touch owned'\ntR.")
    sources = sources_of(models, "logits_only", tmp_path / "weights.pt")
    with pytest.raises(ExportError, match="holds more than tensors"):
        export_bundle(ExportRequest(tmp_path / "bundle", sources), lambda _: None)


def test_class_names_must_fit(models: Path, tmp_path: Path) -> None:
    sources = sources_of(models, "grey_with_features", class_names=("a", "b"))
    with pytest.raises(UsageError, match="2 class names for a classifier of 3"):
        export_bundle(ExportRequest(tmp_path / "bundle", sources), lambda _: None)


def test_labels_and_classes_must_fit(models: Path, tmp_path: Path) -> None:
    small_unet(num_class_embeds=9, **ONE_LEVEL).save_pretrained(tmp_path / "unet", safe_serialization=True)
    sources = ModelSources(tmp_path / "unet", ClassifierSource(f"{models / 'factories.py'}:grey_with_features"))
    with pytest.raises(ExportError, match="has 9 labels and the classifier 3 classes"):
        export_bundle(ExportRequest(tmp_path / "bundle", sources), lambda _: None)


def test_an_output_that_is_no_bundle_is_never_deleted(models: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    sources = sources_of(models, "logits_only")
    with pytest.raises(UsageError, match="not a bundle"):
        export_bundle(ExportRequest(tmp_path, sources, overwrite=True), lambda _: None)
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_a_bundle_is_replaced_only_when_asked(exported: tuple[Path, list[str]], models: Path) -> None:
    sources = sources_of(models, "logits_only")
    with pytest.raises(UsageError, match="--overwrite"):
        export_bundle(ExportRequest(exported[0], sources), lambda _: None)


def test_without_a_scheduler_config_the_papers_schedule_is_assumed_and_said(models: Path, tmp_path: Path) -> None:
    from diffood.export.sources.unets.scheduler import load_schedule

    schedule = load_schedule(tmp_path, None)
    assert "assumed" in schedule.origin
    assert schedule.alpha_bar[0] == pytest.approx(1 - 1e-4)
    assert len(schedule.alpha_bar) == 1000
