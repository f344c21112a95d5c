"""What every session promises, run on each backend and precision that this machine has; the others say why not."""

import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import exported
import numpy as np
import numpy.typing as npt
import pytest

from diffood.errors import DiffoodError
from diffood.runtime.backends import BACKENDS, Backend
from diffood.runtime.bundle.bundle import Bundle, Precision, open_bundle
from diffood.runtime.bundle.writing import add_default_plan
from diffood.runtime.method.plan import Plan
from diffood.runtime.sessions import Session, SessionRequest, onnxruntime_cuda
from diffood.runtime.sessions.backends import examine_backends, open_session
from diffood.runtime.sessions.engines import rebuild_command
from diffood.runtime.sessions.tensorrt import load_library

Pixels = npt.NDArray[np.uint8]

BATCH = 4
STEPS = 40  # of the random models' schedule
# The CUDA session with its buffers bound on the CPU: all of its code but the GPU, on every machine.
ON_CPU = "onnxruntime-cuda, bound on the CPU"
# Of the largest value. Between two calls of one shape: nothing but the order of sums on a GPU.
REPEATED = 1e-5
# Against FP32 on the CPU: other kernels, and half precision inside.
AGAINST_FP32: dict[Precision, float] = {"fp32": 1e-3, "fp16": 2e-2}


@pytest.fixture(scope="module")
def half_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Small random models exported in FP32 and FP16: images of 1x8x8, three classes, a schedule of 40 steps."""
    return exported.copy_exported(exported.HALF, tmp_path_factory.mktemp("half") / "bundle")


@dataclass(frozen=True)
class Opened:
    """A backend and a precision that this machine has, and images of the bundle's size, uint8 [N, C, H, W]."""

    bundle: Bundle
    precision: Precision
    images: Pixels
    open: Callable[[SessionRequest], Session]

    @property
    def plan(self) -> Plan:
        """Two stages of trajectories of two lengths."""
        stride = len(self.bundle.alpha_bar) * 6 // STEPS
        names = ("jump", "reconstruction", "energy")
        starts = {"start_times": (stride, 3 * stride), "stride": stride}
        return Plan.model_validate({**starts, "repeats": 2, "guidance": 2.0, "witnesses": names, "stages": (1,)})

    def session(self, **changes: Any) -> Session:
        """A session of a changed plan."""
        return self.open(SessionRequest(self.bundle, self.plan.changed(changes), self.precision, BATCH, 1))

    def reference(self, **changes: Any) -> Session:
        """The same in FP32 on the CPU."""
        return open_session(
            "onnxruntime-cpu", SessionRequest(self.bundle, self.plan.changed(changes), "fp32", BATCH, 1)
        )


def why_not(backend: Backend, request: SessionRequest | None) -> str:
    """The reason a backend cannot be used; "" where it can."""
    found = next(entry for entry in examine_backends(request) if entry.backend == backend)
    return "" if found.usable else found.reason


ALL: list[tuple[str, Precision]] = [
    (backend, precision) for backend in (*BACKENDS, ON_CPU) for precision in AGAINST_FP32
]
REASONS = {variant: "" if variant[0] == ON_CPU else why_not(variant[0], None) for variant in ALL}
VARIANTS = [
    pytest.param(variant, marks=() if variant[0] in ("onnxruntime-cpu", ON_CPU) else pytest.mark.gpu)
    for variant in ALL
    if not REASONS[variant]
]


@pytest.mark.gpu
def test_a_variant_that_cannot_run_here_is_refused(small_bundle: Bundle) -> None:
    """Skipped then, with the reasons; all other tests of this file run on the rest."""
    left_out = {variant: reason for variant, reason in REASONS.items() if reason}
    for backend, precision in left_out:
        with pytest.raises(DiffoodError):
            open_session(backend, SessionRequest(small_bundle, small_bundle.plan(), precision, BATCH, 1))
    if left_out:
        pytest.skip("; ".join(f"{'-'.join(variant)}: {reason}" for variant, reason in left_out.items()))


@pytest.fixture(scope="module", params=VARIANTS, ids="-".join)
def opened(request: pytest.FixtureRequest, small_bundle: Bundle, clothes: Pixels, tmp_path_factory: Any) -> Opened:
    """Each backend that runs here, in FP32 on small trained models and in FP16 on random ones."""
    backend, precision = request.param
    bundle = small_bundle if precision == "fp32" else request.getfixturevalue("half_bundle")
    images = clothes[: 2 * BATCH + 1, None]
    if precision == "fp16":
        images = np.ascontiguousarray(images[:, :, 10:18, 10:18])
    return Opened(bundle, precision, images, opener(backend, tmp_path_factory))


@pytest.fixture(scope="module", params=VARIANTS, ids="-".join)
def latent(request: pytest.FixtureRequest, dit_bundle: Bundle, clothes: Pixels, tmp_path_factory: Any) -> Opened:
    """Each backend and precision that runs here, on a bundle with an autoencoder."""
    backend, precision = request.param
    return Opened(dit_bundle, precision, clothes[: 2 * BATCH + 1, None], opener(backend, tmp_path_factory))


def opener(backend: str, folders: pytest.TempPathFactory) -> Callable[[SessionRequest], Session]:
    """What opens a session on a backend; with an engine built for its plan where it needs one."""

    def open_here(request: SessionRequest) -> Session:
        if backend in ("tensorrt", "tensorrt-rtx"):
            request = with_engine(request, backend, folders.mktemp("engines") / "bundle")
        return open_session(backend, request)

    return bound_on_cpu if backend == ON_CPU else open_here


def with_engine(request: SessionRequest, library: Any, folder: Path) -> SessionRequest:
    """The same for a copy of the bundle with an engine for this machine's GPU, built by the command of the refusal."""
    bundle = open_bundle(Path(shutil.copytree(request.bundle.path, folder)))
    copied = replace(request, bundle=add_default_plan(bundle, "contract", request.plan))
    command = rebuild_command(copied, load_library(library).machine)
    subprocess.run([sys.executable, "-m", *shlex.split(command)], check=True, timeout=1200)
    return copied


def bound_on_cpu(request: SessionRequest) -> Session:
    """The CUDA session, told to use the CPU's provider and memory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxruntime_cuda, "PROVIDER", "CPUExecutionProvider")
        patch.setattr(onnxruntime_cuda, "DEVICE", "cpu")
        patch.setattr(onnxruntime_cuda, "OPTIONS", {})
        return onnxruntime_cuda.OnnxRuntimeCudaSession(request)


@pytest.fixture(scope="module")
def session(opened: Opened) -> Session:
    """The session of the plan as it is."""
    return opened.session()


def run_all(session: Session, images: Pixels) -> list[dict[str, Any]]:
    """The outputs of both stages."""
    first = session.run(0, {"image": images})
    again = {name: first[name] for name in ("logits", "features")}
    return [dict(first), dict(session.run(1, {"image": images, **again}))]


def assert_close(found: Any, wanted: Any, limit: float) -> None:
    """Equal within `limit` of the largest wanted value."""
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=0, atol=limit * float(np.abs(wanted).max(initial=1)))


def test_a_session_says_what_it_is(opened: Opened, session: Session) -> None:
    assert (session.precision, session.batch) == (opened.precision, BATCH)
    assert session.backend in BACKENDS
    assert (session.engine_sha256 is None) == session.backend.startswith("onnxruntime")
    assert (session.threads > 0) == (session.backend == "onnxruntime-cpu")


def test_a_stage_takes_any_number_of_images(opened: Opened, session: Session, subtests: pytest.Subtests) -> None:
    whole, image = run_all(session, opened.images), opened.bundle.manifest.image
    assert len(np.unique(whole[0]["logits"][:, 0])) == len(opened.images)  # each image has its own row
    for count in [0, 1, BATCH - 1, BATCH, BATCH + 1, 2 * BATCH + 1]:
        with subtests.test(count=count):
            for part, all_of_it in zip(run_all(session, opened.images[:count]), whole, strict=True):
                assert part.keys() == all_of_it.keys()
                for name, value in part.items():
                    assert_close(value, all_of_it[name][:count], REPEATED)
            found = session.run(0, {"image": opened.images[:count]})
            assert found["sound"].shape == found["jump"].shape == (count, 1, 2)
            assert found["denoised"].shape == (count, image.channels, image.height, image.width)


def test_results_are_the_callers_own(opened: Opened, session: Session) -> None:
    first = session.run(0, {"image": opened.images[:2]})
    kept = {name: value.copy() for name, value in first.items()}
    run_all(session, opened.images[2:6])
    for name, value in first.items():
        np.testing.assert_array_equal(value, kept[name])


def test_a_row_does_not_depend_on_its_company(opened: Opened, session: Session) -> None:
    expected = run_all(session, opened.images)
    order = np.random.default_rng(0).permutation(len(opened.images))
    for found, wanted in zip(run_all(session, opened.images[order]), expected, strict=True):
        for name, value in found.items():
            assert_close(value, wanted[name][order], REPEATED)


def test_both_stages_are_those_of_fp32_on_the_cpu(opened: Opened, subtests: pytest.Subtests) -> None:
    for case, changes in {
        "ddim": {},
        "pndm4": {"sampler": "pndm4"},
        "reference pndm2": {"sampler": "pndm2", "schedule": "reference"},
        "unguided": {"guidance": 0.0, "space": "features"},
    }.items():
        with subtests.test(case=case):
            assert_as_fp32(opened, **changes)


def test_latents_are_those_of_fp32_on_the_cpu(latent: Opened) -> None:
    assert_as_fp32(latent)


def assert_as_fp32(opened: Opened, **changes: Any) -> None:
    images = opened.images[: BATCH + 1]
    wanted = run_all(opened.reference(**changes), images)
    assert (wanted[1]["jump"] > 0).all()
    for found, exact in zip(run_all(opened.session(**changes), images), wanted, strict=True):
        assert found.keys() == exact.keys()
        assert (found["sound"] == 1).all()
        for name, value in found.items():
            assert_close(value, exact[name], 2 * AGAINST_FP32[opened.precision])
