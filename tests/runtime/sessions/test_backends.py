"""Which backends can run, and the refusals of those that cannot: the right class, the reason, and no crash."""

import itertools
import os
import subprocess
import sys

import pytest

from diffood.errors import BundleError, DeviceError, DiffoodError, MissingExtraError
from diffood.runtime.assembly.recipe import list_stages, make_recipe
from diffood.runtime.backends import BACKENDS
from diffood.runtime.bundle.bundle import Bundle, Precision
from diffood.runtime.sessions import SessionRequest, onnxruntime_cuda
from diffood.runtime.sessions.backends import examine_backends, open_session
from diffood.runtime.sessions.cuda import Device, explain_old_driver
from diffood.runtime.sessions.onnxruntime import ProviderSettings, load_stage

EXTRAS = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt-rtx", "onnxruntime-cuda": "gpu"}

# Opens a session on the backend named, and prints the refusal and which heavy modules it imported before.
OPEN = """
import sys
from pathlib import Path
from diffood.errors import DiffoodError
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.sessions import SessionRequest
from diffood.runtime.sessions.backends import examine_backends, open_session

bundle, backend = open_bundle(Path(sys.argv[1])), sys.argv[2]
request = SessionRequest(bundle, bundle.plan(), "fp32", 4)
reason = next(found.reason for found in examine_backends(request) if found.backend == backend)
try:
    open_session(backend, request)
except DiffoodError as error:
    assert str(error).rstrip(".") == reason, (str(error), reason)
    print(type(error).__name__, error, sep=": ")
    print(*({"tensorrt", "tensorrt_rtx"} & {name for name, module in sys.modules.items() if module}), sep=",")
"""


def open_elsewhere(bundle: Bundle, backend: str, before: str = "") -> list[str]:
    """What a process prints that has no GPU to see and opens a session; it must end by itself, not by a signal."""
    done = subprocess.run(
        [sys.executable, "-c", before + OPEN, str(bundle.path), backend],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def request_of(bundle: Bundle, precision: Precision = "fp32") -> SessionRequest:
    return SessionRequest(bundle, bundle.plan(), precision, 4)


def test_all_backends_are_examined_best_first(small_bundle: Bundle) -> None:
    for request in (None, request_of(small_bundle)):
        found = examine_backends(request)
        assert tuple(entry.backend for entry in found) == tuple(BACKENDS)
        assert all(entry.reason and "\n" not in entry.reason for entry in found)
        assert found[-1].usable
        assert found[-1].reason.startswith("onnxruntime 1.")


def test_a_precision_the_bundle_does_not_hold_is_no_backends(small_bundle: Bundle, subtests: pytest.Subtests) -> None:
    for backend in BACKENDS:
        with subtests.test(backend=backend):
            found = next(f for f in examine_backends(request_of(small_bundle, "int8")) if f.backend == backend)
            assert not found.usable
            assert "has no int8 graphs, only fp32" in found.reason
            with pytest.raises(DiffoodError):
                open_session(backend, request_of(small_bundle, "int8"))


def test_without_a_gpu_a_session_is_refused_and_nothing_crashes(
    small_bundle: Bundle, subtests: pytest.Subtests
) -> None:
    for backend in ["tensorrt", "tensorrt-rtx", "onnxruntime-cuda"]:
        with subtests.test(backend=backend):
            refusal, imported = open_elsewhere(small_bundle, backend)
            kind, _, message = refusal.partition(": ")
            if kind == "MissingExtraError":
                assert f"pip install 'diffood[{EXTRAS[backend]}]'" in message
            else:
                assert kind == "DeviceError"
                assert "CUDA finds no GPU here (cudaError" in message
            assert imported == ""  # the device is asked for first


def test_a_package_that_is_missing_names_its_extra(small_bundle: Bundle, subtests: pytest.Subtests) -> None:
    for backend, package in itertools.product(["tensorrt", "tensorrt-rtx"], ["tensorrt", "tensorrt_rtx", "cuda"]):
        with subtests.test(backend=backend, package=package):
            if package == "cuda":
                pytest.importorskip(backend.replace("-", "_"))
            elif package != backend.replace("-", "_"):
                pytest.skip("that package is the other backend's")
            refusal, _ = open_elsewhere(small_bundle, backend, f"import sys; sys.modules[{package!r}] = None\n")
            assert refusal.startswith("MissingExtraError: ")
            assert refusal.endswith(f"pip install 'diffood[{backend}]'.")


def test_a_bundle_without_an_engine_for_this_gpu_names_the_command(small_bundle: Bundle) -> None:
    usable = [found.backend for found in examine_backends(None) if found.usable]
    engines = [backend for backend in usable if backend in ("tensorrt", "tensorrt-rtx")]
    if not engines:
        pytest.skip("; ".join(f.reason for f in examine_backends(None) if "tensorrt" in f.backend))
    for backend in engines:
        with pytest.raises(BundleError, match=rf"run `diffood export --bundle .* --engine {backend}"):
            open_session(backend, request_of(small_bundle))


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_that_silently_fell_back_is_refused(small_bundle: Bundle) -> None:
    import onnxruntime

    recipe = make_recipe(small_bundle, small_bundle.plan("plain"), "fp32")
    missing = sorted(set(onnxruntime.get_all_providers()) - set(onnxruntime.get_available_providers()))
    with pytest.raises(DeviceError, match=f"fell back to .*, {missing[0]} cannot be used here"):
        load_stage(small_bundle.path, recipe, list_stages(recipe.plan)[0], ProviderSettings(missing[0]))


def test_cuda_that_onnxruntime_was_not_built_with_names_the_extra() -> None:
    import onnxruntime

    if onnxruntime_cuda.PROVIDER in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has the CUDA provider")
    with pytest.raises(MissingExtraError, match=r"pip install 'diffood\[gpu\]'"):
        onnxruntime_cuda.require_cuda()


def test_a_probe_that_fails_is_a_device_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a driver that has no usable GPU, where making the session raises instead of falling back."""
    monkeypatch.setattr(onnxruntime_cuda, "PROVIDER", "CPUExecutionProvider")
    monkeypatch.setattr(onnxruntime_cuda, "PROBE", b"not a model")
    with pytest.raises(DeviceError, match=r"^onnxruntime 1\..* cannot use CUDA: .*\)$"):
        onnxruntime_cuda.require_cuda()


def test_the_probe_is_what_it_says() -> None:
    onnx = pytest.importorskip("onnx", reason="needs the extra: export")
    model = onnx.load_from_string(onnxruntime_cuda.PROBE)
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node] == ["Conv"]
    assert [entry.version for entry in model.opset_import] == [13]


def test_the_probe_passes_where_the_provider_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime_cuda, "PROVIDER", "CPUExecutionProvider")
    monkeypatch.setattr(onnxruntime_cuda, "OPTIONS", {})
    onnxruntime_cuda.require_cuda()


def test_a_provider_that_computes_wrongly_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    onnx = pytest.importorskip("onnx", reason="needs the extra: export")
    model = onnx.load_from_string(onnxruntime_cuda.PROBE)
    model.graph.node[0].CopyFrom(onnx.helper.make_node("ReduceMax", ["x"], ["y"]))
    monkeypatch.setattr(onnxruntime_cuda, "PROVIDER", "CPUExecutionProvider")
    monkeypatch.setattr(onnxruntime_cuda, "OPTIONS", {})
    monkeypatch.setattr(onnxruntime_cuda, "PROBE", model.SerializeToString())
    with pytest.raises(
        DeviceError, match=r"computes a convolution wrongly on .*: 8, not 204\. Install another version"
    ):
        onnxruntime_cuda.require_cuda()


def test_onnxruntime_for_a_newer_cuda_than_the_drivers_is_named(subtests: pytest.Subtests) -> None:
    older = "a newer driver, or pip install 'onnxruntime-gpu[cuda,cudnn]<1.27', which is built for CUDA 12."
    for built_for, driver, message in [
        ("13.0", "12.6", f"built for CUDA 13.0, and the driver of A GPU runs CUDA 12.6 at most. Install {older}"),
        (
            "12.8",
            "11.4",
            "built for CUDA 12.8, and the driver of A GPU runs CUDA 11.4 at most. Install a newer driver.",
        ),
        ("12.8", "12.4", ""),  # minor versions of one major version are compatible
        ("12.8", "13.0", ""),
        ("13.0", "13.0", ""),
        ("unknown", "12.6", ""),
    ]:
        with subtests.test(built_for=built_for, driver=driver):
            found = onnxruntime_cuda.explain_cuda_version(built_for, Device("A GPU", "8.7", driver))
            assert found.endswith(message)
            assert bool(found) == bool(message)


def test_a_driver_that_is_too_old_for_cuda_bindings_is_named_with_both_versions() -> None:
    assert explain_old_driver(0, 13000) == ""  # no driver at all
    assert explain_old_driver(12060, 13000) == (
        "the driver runs CUDA 12.6 at most, cuda-bindings is for 13.0: 'cuda-bindings<13' suits it"
    )
    assert explain_old_driver(12020, 12080) == "the driver runs CUDA 12.2 at most, cuda-bindings is for 12.8"


def test_a_driver_library_that_fails_its_own_way_is_a_reason_like_any_other() -> None:
    """As cuda.bindings of some versions with a driver that is too old: any call raises, and no status is returned."""
    for raised in ("RuntimeError", "ValueError"):
        program = f"""
import sys, types
runtime = types.ModuleType("cuda.bindings.runtime")
def fail(*given):
    raise {raised}("no such function")
runtime.__getattr__ = lambda name: fail
sys.modules["cuda.bindings.runtime"] = runtime
sys.modules["tensorrt"] = sys.modules["tensorrt_rtx"] = None
from diffood.cli import main
sys.argv = ["diffood", "doctor"]
main()
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=300)
        assert (done.returncode, done.stderr) == (0, "")
        assert "GPU             none: CUDA finds no GPU here (no such function): install NVIDIA's driver" in done.stdout
        assert "backend         onnxruntime-cpu can run: " in done.stdout


def test_a_folder_that_an_uninstalled_onnxruntime_left_is_no_onnxruntime() -> None:
    """What `pip uninstall` leaves of two packages in one folder: a name that imports and holds nothing."""
    program = """
import sys, types
sys.modules["onnxruntime"] = types.ModuleType("onnxruntime")
from diffood.runtime.sessions.backends import examine_backends
assert not any(found.usable for found in examine_backends(None) if "onnxruntime" in found.backend)
print(examine_backends(None)[-1].reason)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=300)
    assert done.stdout.startswith("onnxruntime cannot be imported"), done
