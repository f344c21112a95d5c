"""Real TensorRT-RTX engines of the zoo's graphs and of a large UNet, built without a GPU; none is run here.

A rebuild is not byte-identical. Measured with TensorRT-RTX 1.7.1 on the zoo's graphs, 3 to 10 builds each: plans have
the same size every time, and at most 0.1 % of the bytes differ, since the builder numbers its temporaries and orders
the scalars of its shape arithmetic anew; weights stay. So engine.json records the hash of each plan, and a rebuilt
engine has another digest than the one a calibration was made for.
"""

import hashlib
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from engine_building import NEEDS_TENSORRT_RTX, PROFILE, build, keep_classify_alone
from halved_graphs import add_halved_graphs, reseal

from diffood import zoo
from diffood.errors import BundleError, ExportError, UsageError
from diffood.export.engines.build import ask_platform
from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.bundle.engines import EngineFolder, EngineHost, Profile, find_engine, list_engines, read_plan

pytestmark = NEEDS_TENSORRT_RTX


@dataclass(frozen=True)
class Built:
    """A copy of the zoo's bundle with FP16 engines for two GPUs and FP32 ones for one, and what was reported."""

    bundle: Bundle
    folders: list[Path]
    lines: list[str]
    version: str

    def find(self, compute_capability: str, precision: str = "fp32") -> EngineFolder:
        machine = EngineHost("tensorrt-rtx", self.version, compute_capability)
        return find_engine(self.bundle, machine, precision, batch=16)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    path = Path(shutil.copytree(zoo.BUNDLE, tmp_path_factory.mktemp("zoo") / "bundle"))
    if "fp16" not in open_bundle(path).precisions:
        add_halved_graphs(path)
    lines: list[str] = []
    folders = build(path, "sm86", "sm89", precisions=("fp16",), report=lines.append) + build(path, "sm86")
    return Built(open_bundle(path), folders, lines, ask_platform("tensorrt-rtx").library_version)


ROLES = ("classify", "step_plain", "step_guided")


@pytest.mark.parametrize(("capability", "precision"), [("8.6", "fp16"), ("8.9", "fp16"), ("8.6", "fp32")])
def test_every_graph_of_the_zoo_becomes_an_engine_of_its_own(built: Built, capability: str, precision: str) -> None:
    engine = built.find(capability, precision)
    assert engine.path.name == f"tensorrt-rtx-sm{capability.replace('.', '')}-{precision}"
    plans = {role: read_plan(engine, role) for role in ROLES}
    assert {plan.role for plan in engine.record.plans} == plans.keys()
    assert len(set(plans.values())) == len(ROLES)
    for role, plan in plans.items():
        weights = 2 * sum(built.bundle.graph(role, "fp32").weights.values())  # bytes, in FP16
        assert len(plan) > (weights if precision == "fp16" else 2 * weights)


def test_the_record_binds_an_engine_to_all_it_came_from(built: Built) -> None:
    record = built.find("8.9", "fp16").record
    assert (record.library, record.library_version) == ("tensorrt-rtx", built.version)
    assert (record.gpu, record.driver) == (None, None)
    assert record.profile == PROFILE
    assert (record.options["strongly_typed"], record.options["tf32"]) == ("yes", "no")
    for plan in record.plans:
        onnx = built.bundle.path / built.bundle.graph(plan.role, "fp16").file
        assert plan.onnx_sha256 == hashlib.sha256(onnx.read_bytes()).hexdigest()


def test_int8_graphs_of_the_zoo_become_engines_for_two_gpus(int8_bundle: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(int8_bundle, tmp_path / "bundle"))
    build(path, "sm86", "sm89", precisions=("int8",))
    bundle = open_bundle(path)
    for engine in list_engines(bundle):
        assert engine.record.precision == "int8"
        for plan in engine.record.plans:
            assert plan.onnx_sha256 == bundle.manifest.files[f"{plan.role}.int8.onnx"].sha256
            assert read_plan(engine, plan.role)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_classifier_that_shrinks_its_images_becomes_an_engine(bundle_copy: Path, precision: str) -> None:
    """Antialiased, as two products of matrices: TensorRT refuses ONNX's Resize with antialiasing."""
    torch = pytest.importorskip("torch")
    onnx = pytest.importorskip("onnx")
    from diffood.export.graphs.modules import ClassifyGraph
    from diffood.export.onnx.proof import export_onnx
    from diffood.export.sources.classifiers.classifier import load_classifier
    from diffood.export.sources.classifiers.preprocessing import Preprocessing
    from diffood.export.sources.classifiers.source import ClassifierSource

    keep_classify_alone(bundle_copy)
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
    assert (folder / "classify.plan").stat().st_size > 2 * sum(parameter.numel() for parameter in graph.parameters())


def test_engines_of_two_gpus_and_precisions_differ(built: Built) -> None:
    engines = list_engines(built.bundle)
    assert [engine.path for engine in engines] == sorted(built.folders)
    assert len({engine.digest for engine in engines}) == 3


def test_each_graph_is_reported_as_it_is_built(built: Built) -> None:
    assert built.version in built.lines[0]
    for role in ROLES:
        for gpu in ("sm86", "sm89"):
            assert [line for line in built.lines if line.startswith(f"{role}.fp16.onnx") and gpu in line]


def test_an_engine_of_another_gpu_or_library_is_refused_with_the_command_that_builds_it(built: Built) -> None:
    with pytest.raises(BundleError, match=r"8\.6, this GPU has 12\.0.* --gpu sm120 --precision fp32"):
        built.find("12.0")
    with pytest.raises(BundleError, match=r"is installed.* --gpu sm86"):
        find_engine(built.bundle, EngineHost("tensorrt-rtx", "0.1", "8.6"), "fp32", 16)


def test_a_built_plan_with_one_byte_changed_is_refused(built: Built) -> None:
    engine = built.find("8.6")
    path = engine.path / "step_plain.plan"
    data = path.read_bytes()
    middle = len(data) // 2
    path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    try:
        with pytest.raises(BundleError, match="do not run it"):
            read_plan(engine, "step_plain")
    finally:
        path.write_bytes(data)
    assert read_plan(engine, "step_plain") == data


def test_a_rebuild_replaces_the_engine_whole_and_is_recorded_as_another(built: Built) -> None:
    before = built.find("8.6", "fp16")
    old = {role: read_plan(before, role) for role in ROLES}
    assert build(built.bundle.path, "sm86", precisions=("fp16",)) == [before.path]
    after = built.find("8.6", "fp16")
    new = {role: read_plan(after, role) for role in ROLES}
    assert (after.digest == before.digest) == (new == old)
    bound = {"plans": ()}  # all but the plans' own hashes
    assert after.record.model_copy(update=bound) == before.record.model_copy(update=bound)
    for role in ROLES:
        assert abs(len(new[role]) - len(old[role])) <= 0.01 * len(old[role])
        if len(new[role]) == len(old[role]):
            assert np.mean(np.frombuffer(new[role], np.uint8) != np.frombuffer(old[role], np.uint8)) <= 0.01
    assert sorted(path.name for path in after.path.parent.iterdir()) == sorted(path.name for path in built.folders)


@pytest.fixture
def with_unknown_operators(bundle_copy: Path) -> Path:
    """A bundle whose classify graph ends in two operators no TensorRT has, as a custom export may leave behind."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(bundle_copy / "classify.onnx")
    for output, operator, domain in (("logits", "FancyNorm", "com.acme"), ("features", "Det", "")):
        inner = f"{output}_before"
        for node in model.graph.node:
            node.output[:] = [inner if name == output else name for name in node.output]
            node.input[:] = [inner if name == output else name for name in node.input]
        extra = onnx.helper.make_node(operator, [inner], [output], name=f"head/{output}", domain=domain)
        model.graph.node.append(extra)
    model.opset_import.append(onnx.helper.make_opsetid("com.acme", 1))
    onnx.save(model, bundle_copy / "classify.onnx")
    reseal(bundle_copy, lambda _: None)
    return bundle_copy


def test_unsupported_nodes_are_all_named_with_what_to_do(with_unknown_operators: Path) -> None:
    with pytest.raises(ExportError) as error:
        build(with_unknown_operators, "sm86")
    message = str(error.value)
    assert "cannot build classify.onnx" in message
    assert "node 'head/logits' (operator FancyNorm) is not supported" in message
    assert "node 'head/features' (operator Det) is not supported" in message
    assert "another --opset or --precision, or install a newer tensorrt-rtx" in message


def test_a_failed_build_leaves_the_engine_there_was(with_unknown_operators: Path) -> None:
    former = with_unknown_operators / "engines" / "tensorrt-rtx-sm86-fp32"
    former.mkdir(parents=True)
    (former / "engine.json").write_text("what was there")
    with pytest.raises(ExportError):
        build(with_unknown_operators, "sm86")
    assert [path.name for path in former.parent.iterdir()] == [former.name]
    assert (former / "engine.json").read_text() == "what was there"


def test_a_link_in_the_engines_place_is_replaced_and_what_it_points_to_stays(bundle_copy: Path, tmp_path: Path) -> None:
    keep_classify_alone(bundle_copy)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "thesis.txt").write_text("precious")
    (bundle_copy / "engines").mkdir()
    (bundle_copy / "engines" / "tensorrt-rtx-sm86-fp32").symlink_to(tmp_path / "elsewhere")
    (folder,) = build(bundle_copy, "sm86")
    assert not folder.is_symlink()
    assert (tmp_path / "elsewhere" / "thesis.txt").read_text() == "precious"
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["thesis.txt"]


def test_gpus_are_built_once_each_however_they_are_written(bundle_copy: Path) -> None:
    keep_classify_alone(bundle_copy)
    folders = build(bundle_copy, "sm80", " SM121", "sm80")
    assert [folder.name for folder in folders] == ["tensorrt-rtx-sm80-fp32", "tensorrt-rtx-sm121-fp32"]
    assert [engine.record.compute_capability for engine in list_engines(open_bundle(bundle_copy))] == ["12.1", "8.0"]


def test_a_precision_the_gpu_lacks_is_told_in_the_builders_words(bundle_copy: Path) -> None:
    """TensorRT-RTX 1.7.1 multiplies FP32 matrices on no Turing GPU; the FP16 graphs of the zoo do build for sm75."""
    try:
        build(bundle_copy, "sm75")
    except ExportError as error:
        assert re.search(
            r"classify.onnx: the builder says: Cannot compile .*Turing.* Try another --precision", str(error)
        )
    else:
        pytest.skip("this TensorRT-RTX builds FP32 for Turing")


@pytest.mark.parametrize("gpus", [(), ("sm86", "sm87"), ("8.6",), ("",), ("rtx4090",)])
def test_an_unknown_gpu_is_answered_with_the_known_ones(bundle_copy: Path, gpus: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=r"builds for sm75, sm80, sm86, sm89, sm120"):
        build(bundle_copy, *gpus)
    assert not (bundle_copy / "engines").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"profile": Profile(smallest=4, usual=2, largest=8)}, "4,2,8 must ascend"),
        ({"profile": Profile(smallest=1, usual=16, largest=8)}, "1,16,8 must ascend"),
        ({"workspace_mb": 0}, "--workspace 0"),
        ({"timing_cache": Path("cache.bin")}, "no timing cache"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_is_built(
    bundle_copy: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        build(bundle_copy, "sm86", **changes)
    assert not (bundle_copy / "engines").exists()


def test_a_precision_the_bundle_lacks_is_refused_with_the_export_that_adds_it(bundle_copy: Path) -> None:
    reseal(bundle_copy, lambda m: m.update(graphs=[g for g in m["graphs"] if g["precision"] == "fp32"]))
    with pytest.raises(BundleError, match=r"holds no fp16 graphs.*--precision fp32,fp16"):
        build(bundle_copy, "sm86", precisions=("fp32", "fp16"))
