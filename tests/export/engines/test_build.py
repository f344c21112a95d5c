"""Real TensorRT-RTX engines of the small bundle's and the zoo's stages, built without a GPU; none is run here.

A rebuild is not byte-identical, since the builder numbers its temporaries and orders the scalars of its shape
arithmetic anew; weights stay. So engine.json records the hash of each plan, and a rebuilt
engine has another digest than the one a calibration was made for.
"""

import hashlib
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from cheap_calibration import CHEAPEST, calibrate_cheaply
from engine_building import NEEDS_TENSORRT_RTX, PROFILE, TWO_STAGES, build, set_plan
from halved_graphs import add_halved_graphs, reseal
from refusals import assert_refused

from diffood import zoo
from diffood.errors import BundleError, ExportError, UsageError
from diffood.export.engines.build import ask_platform, choose_capabilities, choose_plans
from diffood.export.engines.worker import BuilderPlatform
from diffood.export.request import EngineBuildRequest
from diffood.runtime.assembly.identity import identify_stage
from diffood.runtime.assembly.recipe import list_stages
from diffood.runtime.bundle.bundle import Bundle, Precision, open_bundle
from diffood.runtime.bundle.engines import EngineFolder, Profile, list_engines, read_plan
from diffood.runtime.bundle.graphs import list_roles
from diffood.runtime.bundle.writing import add_default_plan
from diffood.runtime.method.plan import CLASSIFIER
from diffood.runtime.sessions import SessionRequest
from diffood.runtime.sessions.engines import EngineHost, find_engine

pytestmark = NEEDS_TENSORRT_RTX


@dataclass(frozen=True)
class Built:
    """A bundle with engines, and what was reported."""

    bundle: Bundle
    folders: list[Path]
    lines: list[str]
    version: str

    def find(self, compute_capability: str, precision: Precision = "fp32", plan: str | None = None) -> EngineFolder:
        """An engine of the bundle, opened anew: an open bundle refuses a file that has changed since it was read."""
        machine, bundle = EngineHost("tensorrt-rtx", self.version, compute_capability), open_bundle(self.bundle.path)
        return find_engine(SessionRequest(bundle, bundle.plan(plan), precision, batch=16), machine)


@pytest.fixture(scope="module")
def built(small_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The small bundle with engines of a plan of two stages, for two GPUs; read-only."""
    path = Path(shutil.copytree(small_bundle.path, tmp_path_factory.mktemp("small") / "bundle"))
    set_plan(path, TWO_STAGES)
    lines: list[str] = []
    folders = build(path, "sm86", "sm89", report=lines.append)
    return Built(open_bundle(path), folders, lines, ask_platform("tensorrt-rtx").library_version)


def assert_engines_of_their_own(engine: EngineFolder, bundle: Bundle) -> None:
    """Every stage has become another plan file, large enough for the weights of its graph."""
    record = engine.record
    plans = [read_plan(engine, stage) for stage in record.stages]
    assert len(set(plans)) == len(plans) == len(record.plan.stages) + 1
    for plan, stage in zip(plans, list_stages(record.plan), strict=True):
        roles = list_roles(bundle, record.plan if stage.repeats else CLASSIFIER)
        values = sum(sum(bundle.graph(role, "fp32").weights.values()) for role in roles)
        assert len(plan) > values * {"fp32": 4, "fp16": 2, "int8": 1}[record.precision]


def test_every_stage_becomes_an_engine_of_its_own_for_every_gpu(built: Built) -> None:
    for capability in ("8.6", "8.9"):
        engine = built.find(capability)
        assert engine.path.name == f"tensorrt-rtx-sm{capability.replace('.', '')}-fp32-small"
        assert_engines_of_their_own(engine, built.bundle)
    engines = list_engines(built.bundle)
    assert [engine.path for engine in engines] == sorted(built.folders)
    assert len({engine.digest for engine in engines}) == 2


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_zoos_default_plan_becomes_engines(int8_bundle: Path, tmp_path: Path, precision: Precision) -> None:
    path = Path(shutil.copytree(int8_bundle, tmp_path / "bundle"))
    if precision not in open_bundle(path).precisions:
        add_halved_graphs(path)
    gpus = ("sm75", "sm89") if precision == "fp16" else ("sm89",)  # Turing has no products of FP32 matrices
    build(path, *gpus, precisions=(precision,))
    bundle = open_bundle(path)
    for engine in list_engines(bundle):
        assert_engines_of_their_own(engine, bundle)
    assert len(list_engines(bundle)) == len(gpus)


@pytest.mark.slow
def test_a_plan_with_a_loop_becomes_an_engine(small_bundle_copy: Path) -> None:
    (folder,) = build(small_bundle_copy, "sm86", plans=("reference",))
    assert folder.name == "tensorrt-rtx-sm86-fp32-reference"
    assert_engines_of_their_own(list_engines(open_bundle(small_bundle_copy))[0], open_bundle(small_bundle_copy))


def test_the_record_binds_an_engine_to_all_it_came_from(built: Built) -> None:
    record = built.find("8.9").record
    assert (record.library, record.library_version) == ("tensorrt-rtx", built.version)
    assert (record.gpu, record.driver) == (None, None)
    assert record.profile == PROFILE
    assert (record.options["strongly_typed"], record.options["tf32"]) == ("yes", "no")
    assert (record.plan_name, record.plan) == ("small", TWO_STAGES)
    for file, stage in zip(record.stages, list_stages(record.plan), strict=True):
        assert file.built_from == identify_stage(built.bundle, TWO_STAGES, "fp32", stage)
        assert file.sha256 == hashlib.sha256((built.folders[1] / file.file).read_bytes()).hexdigest()


@pytest.mark.parametrize("precision", ["fp32", pytest.param("fp16", marks=pytest.mark.slow)])
def test_a_classifier_that_shrinks_its_images_becomes_an_engine(bundle_copy: Path, precision: str) -> None:
    """Antialiased, as two products of matrices: TensorRT refuses ONNX's Resize with antialiasing."""
    torch = pytest.importorskip("torch")
    onnx = pytest.importorskip("onnx")
    from diffood.export.graphs.modules import ClassifyGraph
    from diffood.export.onnx.proof import export_onnx
    from diffood.export.sources.classifiers.classifier import load_classifier
    from diffood.export.sources.classifiers.preprocessing import Preprocessing
    from diffood.export.sources.classifiers.source import ClassifierSource

    set_plan(bundle_copy)
    spec, path = f"{zoo.CLASSIFIER}:{zoo.FACTORY}", bundle_copy / "classify.onnx"
    classifier = load_classifier(ClassifierSource(spec, zoo.CLASSIFIER_WEIGHTS, Preprocessing(size=(20, 16))), 28, 28)
    graph = ClassifyGraph(classifier, 1, 28, 28).eval()
    if precision == "fp16":
        classifier.model.half()
    export_onnx(graph, {"x": torch.zeros(2, 1, 28, 28)}, ("logits", "features"), path)
    exported = onnx.load(path).graph
    shapes = [tensor.dims for tensor in exported.initializer]
    assert [20, 28] in shapes
    assert [28, 16] in shapes
    assert "Resize" not in {node.op_type for node in exported.node}
    reseal(bundle_copy, lambda _: None)
    (folder,) = build(bundle_copy, "sm89")
    assert (folder / "stage1.plan").stat().st_size > 2 * sum(parameter.numel() for parameter in graph.parameters())


def test_each_stage_is_reported_as_it_is_built(built: Built) -> None:
    assert built.version in built.lines[0]
    for number in (1, 2):
        for gpu in ("sm86", "sm89"):
            assert [line for line in built.lines if line.startswith(f"small fp32 stage {number}") and gpu in line]


def test_an_engine_of_another_gpu_or_library_is_refused_with_the_command_that_builds_it(built: Built) -> None:
    with pytest.raises(BundleError, match=r"8\.6, this GPU has 12\.0.* --gpu sm120 --precision fp32"):
        built.find("12.0")
    with pytest.raises(BundleError, match=r"is installed.* --gpu sm86"):
        replace(built, version="0.1").find("8.6")


def test_a_built_plan_with_one_byte_changed_is_refused(built: Built) -> None:
    engine = built.find("8.6")
    stage = engine.record.stages[1]
    path = engine.path / stage.file
    data = path.read_bytes()
    middle = len(data) // 2
    path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    try:
        with pytest.raises(BundleError, match="do not run it"):
            read_plan(built.find("8.6"), stage)
    finally:
        path.write_bytes(data)
    assert read_plan(built.find("8.6"), stage) == data


def test_a_rebuild_replaces_the_engine_whole_and_is_recorded_as_another(built: Built) -> None:
    before = built.find("8.6")
    old = [read_plan(before, stage) for stage in before.record.stages]
    assert build(built.bundle.path, "sm86") == [before.path]
    after = built.find("8.6")
    new = [read_plan(after, stage) for stage in after.record.stages]
    assert (after.digest == before.digest) == (new == old)
    bound = {"stages": ()}  # all but the plan files' own hashes
    assert after.record.model_copy(update=bound) == before.record.model_copy(update=bound)
    for one, other in zip(old, new, strict=True):
        assert abs(len(other) - len(one)) <= 0.01 * len(one)
        if len(other) == len(one):
            assert np.mean(np.frombuffer(other, np.uint8) != np.frombuffer(one, np.uint8)) <= 0.01
    assert sorted(path.name for path in after.path.parent.iterdir()) == sorted(path.name for path in built.folders)


def end_in_unknown_operators(bundle: Path) -> None:
    """Let a bundle's classify graph end in two operators of ONNX that no TensorRT has."""
    onnx = pytest.importorskip("onnx")
    model, make = onnx.load(bundle / "classify.onnx"), onnx.helper.make_node
    for output in ("logits", "features"):
        for node in model.graph.node:
            node.output[:] = [f"{output}_before" if name == output else name for name in node.output]
            node.input[:] = [f"{output}_before" if name == output else name for name in node.input]
    quantised = ["quantised", "scale", "zero"]
    model.graph.node.extend(
        [
            make("DynamicQuantizeLinear", ["logits_before"], quantised, name="head/logits"),
            make("DequantizeLinear", quantised, ["logits"], name="head/back"),
            make("Shape", ["features_before"], ["sizes"], name="head/sizes"),
            make("CenterCropPad", ["features_before", "sizes"], ["features"], name="head/features"),
        ]
    )
    onnx.save(model, bundle / "classify.onnx")
    reseal(bundle, lambda _: None)


def test_unsupported_nodes_are_all_named_and_the_engine_there_was_stays(small_bundle_copy: Path) -> None:
    end_in_unknown_operators(small_bundle_copy)
    set_plan(small_bundle_copy)
    former = small_bundle_copy / "engines" / "tensorrt-rtx-sm86-fp32-small"
    former.mkdir(parents=True)
    (former / "engine.json").write_text("what was there")
    with pytest.raises(ExportError) as error:
        build(small_bundle_copy, "sm86")
    message = str(error.value)
    assert "cannot build small fp32 stage 1" in message
    assert "(operator DynamicQuantizeLinear) is not supported" in message
    assert "(operator CenterCropPad) is not supported" in message
    assert "another --opset or --precision, or install a newer tensorrt-rtx" in message
    assert [path.name for path in former.parent.iterdir()] == [former.name]
    assert (former / "engine.json").read_text() == "what was there"


def test_a_link_in_the_engines_place_is_replaced_and_what_it_points_to_stays(
    small_bundle_copy: Path, tmp_path: Path
) -> None:
    set_plan(small_bundle_copy)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "thesis.txt").write_text("precious")
    (small_bundle_copy / "engines").mkdir()
    (small_bundle_copy / "engines" / "tensorrt-rtx-sm86-fp32-small").symlink_to(tmp_path / "elsewhere")
    (folder,) = build(small_bundle_copy, "sm86")
    assert not folder.is_symlink()
    assert (tmp_path / "elsewhere" / "thesis.txt").read_text() == "precious"
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["thesis.txt"]


def test_gpus_are_built_once_each_however_they_are_written() -> None:
    platform = BuilderPlatform(library_version="1.7", compute_capabilities=("7.5", "8.0", "8.6", "12.1"))

    def choose(*gpus: str) -> tuple[str, ...]:
        return choose_capabilities(EngineBuildRequest("tensorrt-rtx", PROFILE, gpus=gpus), platform)

    assert choose("sm80", " SM121", "sm80") == ("8.0", "12.1")
    assert choose("86", "8.6", "sm_86", "sm8.6", "12.1") == ("8.6", "12.1")
    known = "builds for sm75, sm80, sm86, sm121"
    unknown = [
        ((), known),
        (("sm86", "sm87"), f"'sm87' is unknown: .* {known}"),
        (("8.7",), f"'8.7' is unknown: .* {known}"),
        (("",), known),
    ]
    assert_refused(UsageError, unknown, lambda gpus: choose(*gpus))


def test_an_unknown_gpu_is_answered_with_those_the_library_knows(small_bundle_copy: Path) -> None:
    with pytest.raises(UsageError, match=r"'rtx4090' is unknown: .* builds for sm75, sm80, sm86, sm89, sm120"):
        build(small_bundle_copy, "rtx4090")
    assert not (small_bundle_copy / "engines").exists()


def test_a_precision_the_gpu_lacks_is_told_in_the_builders_words(small_bundle_copy: Path) -> None:
    """TensorRT-RTX 1.7.1 multiplies FP32 matrices on no Turing GPU; the FP16 graphs of the zoo do build for sm75."""
    set_plan(small_bundle_copy)
    try:
        build(small_bundle_copy, "sm75")
    except ExportError as error:
        assert re.search(
            r"small fp32 stage 1: the builder says: Cannot compile .*Turing.* Try another --precision", str(error)
        )
    else:
        pytest.skip("this TensorRT-RTX builds FP32 for Turing")


def test_options_that_cannot_be_are_refused_before_anything_is_built(small_bundle_copy: Path) -> None:
    cases = [
        ({"profile": Profile(smallest=4, usual=2, largest=8)}, "4,2,8 must ascend"),
        ({"profile": Profile(smallest=1, usual=16, largest=8)}, "1,16,8 must ascend"),
        ({"workspace_mb": 0}, "--workspace 0"),
        ({"timing_cache": Path("cache.bin")}, "does not use a timing cache"),
    ]
    assert_refused(UsageError, cases, lambda changes: build(small_bundle_copy, "sm86", **changes))
    assert not (small_bundle_copy / "engines").exists()


def test_a_precision_the_bundle_lacks_is_refused_with_the_export_that_adds_it(small_bundle_copy: Path) -> None:
    with pytest.raises(BundleError, match=r"has no fp16 graphs.*export --bundle .* --precision fp16"):
        build(small_bundle_copy, "sm86", precisions=("fp32", "fp16"))


def test_the_default_plan_and_the_calibrations_are_built_unless_others_are_named(
    small_bundle_copy: Path, clothes_folder: Path
) -> None:
    bundle = open_bundle(small_bundle_copy)
    assert choose_plans(bundle, ()) == {"default": bundle.plan()}
    assert choose_plans(bundle, ("fast", "plain")) == {"fast": bundle.plan("fast"), "plain": bundle.plan("plain")}
    with pytest.raises(UsageError, match="No plan 'slow' in this bundle; it has: default, fast"):
        choose_plans(bundle, ("slow",))
    calibrate_cheaply(small_bundle_copy, clothes_folder)
    assert choose_plans(bundle, ()) == {"default": bundle.plan(), "calibrated": CHEAPEST}
    assert choose_plans(bundle, ("fast",)) == {"fast": bundle.plan("fast")}
    add_default_plan(bundle, "cheap", CHEAPEST)
    assert choose_plans(open_bundle(small_bundle_copy), ()) == {"cheap": CHEAPEST}
