"""The process that builds an engine: options reach it, it imports nothing foreign, and its death is explained."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from engine_building import NEEDS_TENSORRT_RTX, PROFILE, TWO_STAGES, build, set_plan

from diffood import zoo
from diffood.errors import ExportError, MissingExtraError
from diffood.export.engines.build import build_plan
from diffood.export.engines.worker import BuildJob
from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.bundle.engines import list_engines

pytestmark = NEEDS_TENSORRT_RTX


def job(graph: str, folder: Path, **changes: object) -> BuildJob:
    plan = folder / f"{graph}.plan"
    asked = {"library": "tensorrt-rtx", "name": graph, "plan": plan, "compute_capability": "8.6", "profile": PROFILE}
    return BuildJob.model_validate({**asked, **changes})


def test_too_little_workspace_says_which_option_to_raise(tmp_path: Path) -> None:
    order = job("step_plain.onnx", tmp_path, workspace_mb=1)
    with (
        (zoo.BUNDLE / order.name).open("rb") as onnx,
        pytest.raises(ExportError, match=r"step_plain.onnx: .*--workspace allows \(1 MB\)\. Raise it"),
    ):
        build_plan(order, onnx, lambda _: None)
    assert not order.plan.exists()


def test_bytes_that_are_no_onnx_are_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no graph at all" * 100)
    with (
        (tmp_path / "bad.onnx").open("rb") as onnx,
        pytest.raises(ExportError, match=r"cannot read bad.onnx as ONNX"),
    ):
        build_plan(job("bad.onnx", tmp_path), onnx, lambda _: None)


def test_a_long_build_reports_where_it_is(small_bundle: Bundle, tmp_path: Path) -> None:
    lines: list[str] = []
    with (small_bundle.path / "classify.onnx").open("rb") as onnx:
        build_plan(job("classify.onnx", tmp_path, progress_seconds=0), onnx, lines.append)
    assert len(lines) > 1
    assert all(line.startswith("classify.onnx: ") and " of " in line for line in lines)


def test_a_timing_cache_is_written_and_read_again(small_bundle: Bundle, tmp_path: Path) -> None:
    """The option of `--engine tensorrt`, tried with TensorRT-RTX, which keeps the calls though it times nothing."""
    for run in ("first", "second"):
        order = job("classify.onnx", tmp_path, timing_cache=tmp_path / "cache", plan=tmp_path / run)
        with (small_bundle.path / order.name).open("rb") as onnx:
            assert build_plan(order, onnx, lambda _: None)["timing_cache"] == "yes"
        assert (tmp_path / "cache").stat().st_size > 0
        assert (tmp_path / run).stat().st_size > 0


def children() -> set[int]:
    """Processes this thread has started and that still run."""
    return {int(pid) for pid in Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()}


LINUX = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the builder's process as Linux shows it")


@LINUX
@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (signal.SIGKILL, r"killed with signal 9, probably out of memory\. Lower --workspace or the largest batch"),
        (signal.SIGSEGV, r"crashed with signal 11, SIGSEGV.*another version of tensorrt-rtx"),
    ],
)
def test_a_builder_that_dies_is_an_error_that_says_what_to_do(
    small_bundle: Bundle, tmp_path: Path, sent: signal.Signals, message: str
) -> None:
    before = children()

    def strike(_: str) -> None:
        for pid in children() - before:
            os.kill(pid, sent)

    with (small_bundle.path / "step_plain.onnx").open("rb") as onnx, pytest.raises(ExportError, match=message):
        build_plan(job("step_plain.onnx", tmp_path, progress_seconds=0), onnx, strike)


@LINUX
def test_an_interrupted_build_leaves_no_process_and_no_folder(small_bundle_copy: Path) -> None:
    set_plan(small_bundle_copy, TWO_STAGES)
    before = children()

    def interrupt(line: str) -> None:
        if " stage 1 " in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(small_bundle_copy, "sm86", report=interrupt)
    assert children() == before
    assert not list((small_bundle_copy / "engines").iterdir())


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("raise ImportError('libcudart.so.13: cannot open')", r"cannot be loaded \(libcudart.so.13: cannot open\)"),
        ("import a_package_nobody_has", "a_package_nobody_has, which is not installed"),
    ],
)
def test_a_library_that_cannot_be_imported_names_the_extra(
    small_bundle_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, message: str
) -> None:
    (tmp_path / "tensorrt_rtx.py").write_text(module)  # as a broken installation
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingExtraError, match=rf"{message}.*: pip install 'diffood\[tensorrt-rtx\]'"):
        build(small_bundle_copy, "sm86")


def test_a_module_in_the_working_folder_is_never_imported(
    small_bundle_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_plan(small_bundle_copy)
    for name in ("json.py", "numpy.py", "polygraphy.py", "tensorrt_rtx.py"):
        for folder in (tmp_path, small_bundle_copy):
            (folder / name).write_text("raise SystemExit('foreign code ran')")
    monkeypatch.chdir(small_bundle_copy)
    assert len(build(small_bundle_copy, "sm86")) == 1


def test_engines_are_built_where_there_is_no_torch_and_no_onnx(small_bundle_copy: Path, tmp_path: Path) -> None:
    set_plan(small_bundle_copy)
    for name in ("torch", "onnx", "onnxruntime", "diffusers", "safetensors"):
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('{name} is refused here')")
    program = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})  # the builder's process takes over sys.path
from pathlib import Path
from diffood.export.engines.build import build_engines
from diffood.export.request import EngineBuildRequest
from diffood.runtime.bundle.engines import Profile
profile = Profile(smallest=1, usual=2, largest=4)
request = EngineBuildRequest("tensorrt-rtx", profile, gpus=("sm86",), precisions=("fp32",))
build_engines(Path({str(small_bundle_copy)!r}), request, print)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert [engine.record.profile.largest for engine in list_engines(open_bundle(small_bundle_copy))] == [4]


@pytest.mark.slow
def test_a_unet_of_35_million_parameters_is_built_in_fp16(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    from diffood.export.graphs.modules import StepPlain
    from diffood.export.onnx.proof import export_onnx
    from diffood.export.sources.unets.unet import UNet

    torch.manual_seed(0)
    down, up = ["DownBlock2D"] * 4, ["UpBlock2D"] * 4
    down[1], up[2] = "AttnDownBlock2D", "AttnUpBlock2D"
    channels = (128, 256, 256, 256)
    model = diffusers.UNet2DModel(
        32, 3, 3, block_out_channels=channels, down_block_types=down, up_block_types=up, layers_per_block=2
    )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert 35e6 < parameters < 36e6
    unet = UNet(model.half().eval(), 3, 32, 32, 0, "random weights", "0" * 64)
    example = {"x": torch.zeros(2, 3, 32, 32), "time": torch.zeros(2), "coefficients": torch.zeros(2, 4)}
    export_onnx(StepPlain(unet).eval(), example, ("x_next", "epsilon"), tmp_path / "large.onnx")
    started = time.monotonic()
    with (tmp_path / "large.onnx").open("rb") as onnx:
        build_plan(job("large.onnx", tmp_path, compute_capability="8.9"), onnx, print)
    size = (tmp_path / "large.onnx.plan").stat().st_size
    print(f"{parameters / 1e6:.1f} M parameters in FP16: {size / 1e6:.1f} MB, {time.monotonic() - started:.0f} s")
    assert size > 2 * parameters  # FP16 weights are in the plan
