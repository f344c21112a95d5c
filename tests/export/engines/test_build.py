"""Real TensorRT-RTX engines of the small bundle's and the zoo's graphs, built without a GPU; none is run here.

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
from engine_building import NEEDS_TENSORRT_RTX, PROFILE, build, keep_graphs
from halved_graphs import add_halved_graphs, reseal
from refusals import assert_refused

from diffood import zoo
from diffood.errors import BundleError, ExportError, UsageError
from diffood.export.engines.build import ask_platform, choose_capabilities
from diffood.export.engines.worker import BuilderPlatform
from diffood.export.request import EngineBuildRequest
from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.bundle.engines import EngineFolder, EngineHost, Profile, find_engine, list_engines, read_plan

pytestmark = NEEDS_TENSORRT_RTX


ROLES = ("classify", "step_plain", "step_guided")


@dataclass(frozen=True)
class Built:
    """A bundle with engines, and what was reported."""

    bundle: Bundle
    folders: list[Path]
    lines: list[str]
    version: str

    @property
    def roles(self) -> list[str]:
        return [graph.role for graph in self.bundle.manifest.graphs if graph.precision == "fp32"]

    def find(self, compute_capability: str, precision: str = "fp32") -> EngineFolder:
        machine = EngineHost("tensorrt-rtx", self.version, compute_capability)
        return find_engine(self.bundle, machine, precision, batch=16)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def built(small_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The small bundle without its guided graph, with engines for two GPUs; read-only."""
    path = Path(shutil.copytree(small_bundle.path, tmp_path_factory.mktemp("small") / "bundle"))
    keep_graphs(path, "classify", "step_plain")
    lines: list[str] = []
    folders = build(path, "sm86", "sm89", report=lines.append)
    return Built(open_bundle(path), folders, lines, ask_platform("tensorrt-rtx").library_version)


def assert_engine_of_its_own(built: Built, capability: str, precision: str) -> None:
    """Every graph has become another plan, large enough for its weights."""
    engine = built.find(capability, precision)
    assert engine.path.name == f"tensorrt-rtx-sm{capability.replace('.', '')}-{precision}"
    plans = {role: read_plan(engine, role) for role in built.roles}  # type: ignore[arg-type]
    assert {plan.role for plan in engine.record.plans} == plans.keys()
    assert len(set(plans.values())) == len(plans)
    for role, plan in plans.items():
        halves = 2 * sum(built.bundle.graph(role, "fp32").weights.values())  # type: ignore[arg-type] # bytes in FP16
        assert len(plan) > {"fp32": 2 * halves, "fp16": halves, "int8": halves / 2}[precision]


def test_every_graph_becomes_an_engine_of_its_own_for_every_gpu(built: Built) -> None:
    for capability in ("8.6", "8.9"):
        assert_engine_of_its_own(built, capability, "fp32")
    engines = list_engines(built.bundle)
    assert [engine.path for engine in engines] == sorted(built.folders)
    assert len({engine.digest for engine in engines}) == 2


@pytest.mark.slow
def test_the_zoos_graphs_become_engines_in_every_precision(int8_bundle: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(int8_bundle, tmp_path / "bundle"))
    if "fp16" not in open_bundle(path).precisions:
        add_halved_graphs(path)
    folders = [build(path, "sm89", precisions=(precision,))[0] for precision in ("fp32", "fp16", "int8")]
    zoos = Built(open_bundle(path), folders, [], ask_platform("tensorrt-rtx").library_version)
    assert sorted(zoos.roles) == sorted(ROLES)
    for precision in ("fp32", "fp16", "int8"):
        assert_engine_of_its_own(zoos, "8.9", precision)
    for engine in list_engines(zoos.bundle):
        for plan in engine.record.plans:
            graph = zoos.bundle.graph(plan.role, engine.record.precision)
            assert plan.onnx_sha256 == zoos.bundle.manifest.files[graph.file].sha256


def test_the_record_binds_an_engine_to_all_it_came_from(built: Built) -> None:
    record = built.find("8.9").record
    assert (record.library, record.library_version) == ("tensorrt-rtx", built.version)
    assert (record.gpu, record.driver) == (None, None)
    assert record.profile == PROFILE
    assert (record.options["strongly_typed"], record.options["tf32"]) == ("yes", "no")
    for plan in record.plans:
        onnx = built.bundle.path / built.bundle.graph(plan.role, "fp32").file
        assert plan.onnx_sha256 == hashlib.sha256(onnx.read_bytes()).hexdigest()


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

    keep_graphs(bundle_copy, "classify")
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


def test_each_graph_is_reported_as_it_is_built(built: Built) -> None:
    assert built.version in built.lines[0]
    for role in built.roles:
        for gpu in ("sm86", "sm89"):
            assert [line for line in built.lines if line.startswith(f"{role}.onnx") and gpu in line]


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
    before = built.find("8.6")
    old = {role: read_plan(before, role) for role in built.roles}
    assert build(built.bundle.path, "sm86") == [before.path]
    after = built.find("8.6")
    new = {role: read_plan(after, role) for role in built.roles}
    assert (after.digest == before.digest) == (new == old)
    bound = {"plans": ()}  # all but the plans' own hashes
    assert after.record.model_copy(update=bound) == before.record.model_copy(update=bound)
    for role in built.roles:
        assert abs(len(new[role]) - len(old[role])) <= 0.01 * len(old[role])
        if len(new[role]) == len(old[role]):
            assert np.mean(np.frombuffer(new[role], np.uint8) != np.frombuffer(old[role], np.uint8)) <= 0.01
    assert sorted(path.name for path in after.path.parent.iterdir()) == sorted(path.name for path in built.folders)


def end_in_unknown_operators(bundle: Path) -> None:
    """Let a bundle's classify graph end in two operators no TensorRT has, as a custom export may leave behind."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(bundle / "classify.onnx")
    for output, operator, domain in (("logits", "FancyNorm", "com.acme"), ("features", "Det", "")):
        inner = f"{output}_before"
        for node in model.graph.node:
            node.output[:] = [inner if name == output else name for name in node.output]
            node.input[:] = [inner if name == output else name for name in node.input]
        extra = onnx.helper.make_node(operator, [inner], [output], name=f"head/{output}", domain=domain)
        model.graph.node.append(extra)
    model.opset_import.append(onnx.helper.make_opsetid("com.acme", 1))
    onnx.save(model, bundle / "classify.onnx")
    reseal(bundle, lambda _: None)


def test_unsupported_nodes_are_all_named_and_the_engine_there_was_stays(small_bundle_copy: Path) -> None:
    end_in_unknown_operators(small_bundle_copy)
    former = small_bundle_copy / "engines" / "tensorrt-rtx-sm86-fp32"
    former.mkdir(parents=True)
    (former / "engine.json").write_text("what was there")
    with pytest.raises(ExportError) as error:
        build(small_bundle_copy, "sm86")
    message = str(error.value)
    assert "cannot build classify.onnx" in message
    assert "node 'head/logits' (operator FancyNorm) is not supported" in message
    assert "node 'head/features' (operator Det) is not supported" in message
    assert "another --opset or --precision, or install a newer tensorrt-rtx" in message
    assert [path.name for path in former.parent.iterdir()] == [former.name]
    assert (former / "engine.json").read_text() == "what was there"


def test_a_link_in_the_engines_place_is_replaced_and_what_it_points_to_stays(
    small_bundle_copy: Path, tmp_path: Path
) -> None:
    keep_graphs(small_bundle_copy, "classify")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "thesis.txt").write_text("precious")
    (small_bundle_copy / "engines").mkdir()
    (small_bundle_copy / "engines" / "tensorrt-rtx-sm86-fp32").symlink_to(tmp_path / "elsewhere")
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
