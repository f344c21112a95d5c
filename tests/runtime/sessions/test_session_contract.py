"""What every session promises, run on each backend and precision that this machine has; the others say why not."""

import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from small_unets import small_unet

from diffood.errors import DiffoodError
from diffood.runtime.backends import BACKENDS, Backend
from diffood.runtime.bundle.bundle import Bundle, Precision, open_bundle
from diffood.runtime.bundle.engines import rebuild_command
from diffood.runtime.detector import Detector
from diffood.runtime.images.pixels import from_pixels
from diffood.runtime.method.plan import Plan
from diffood.runtime.method.schedule import NO_REGISTER
from diffood.runtime.method.scoring import Array
from diffood.runtime.sessions import Session, StepInputs, onnxruntime_cuda
from diffood.runtime.sessions.backends import examine_backends, open_session
from diffood.runtime.sessions.tensorrt import load_library

BATCH = 4
STEPS = 40  # of the small models' schedule: the export proves every one of them
# The CUDA session with its buffers bound on the CPU: all of its code but the GPU, on every machine.
ON_CPU = "onnxruntime-cuda, bound on the CPU"
# Of the largest value. Between two calls of one shape: nothing but the order of sums on a GPU.
REPEATED = 1e-5
# Against FP32 on the CPU: other kernels, and half precision inside.
AGAINST_FP32: dict[Precision, float] = {"fp32": 1e-3, "fp16": 2e-2}

FACTORY = """
import torch

class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = torch.nn.Conv2d(1, 6, 3), torch.nn.Linear(6, 3)

    def forward(self, x):
        features = self.conv(x).mean((2, 3))
        return self.head(features), features

def small():
    torch.manual_seed(0)
    return Small()
"""


@pytest.fixture(scope="module")
def half_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Small random models exported in FP32 and FP16: images of 1x8x8, three classes, a schedule of 40 steps."""
    pytest.importorskip("torch", reason="needs the extra: export")
    diffusers = pytest.importorskip("diffusers", reason="needs the extra: export")
    from diffood.export.build import export_bundle
    from diffood.export.request import ExportRequest
    from diffood.export.sources.classifiers.source import ClassifierSource
    from diffood.export.sources.model_sources import ModelSources

    folder = tmp_path_factory.mktemp("half")
    small_unet().save_pretrained(folder / "unet", safe_serialization=True)
    diffusers.DDPMScheduler(num_train_timesteps=STEPS).save_pretrained(folder / "scheduler")
    (folder / "small.py").write_text(FACTORY)
    sources = ModelSources(folder / "unet", ClassifierSource(f"{folder / 'small.py'}:small"))
    output = folder / "bundle"
    export_bundle(ExportRequest(output, sources, precisions=("fp32", "fp16")), lambda _: None)
    return open_bundle(output)


@dataclass(frozen=True)
class Opened:
    """A backend and a precision that this machine has, and images of the bundle's size, float32 [N, C, H, W]."""

    bundle: Bundle
    precision: Precision
    images: Array
    open: Callable[..., Session]

    @property
    def plan(self) -> Plan:
        """Trajectories of two lengths, so that lanes end at different steps."""
        scale = len(self.bundle.alpha_bar) // STEPS
        return Plan(start_times=(6 * scale, 18 * scale), stride=6 * scale, repeats=1, guidance=2.0)

    def detector(self, **changes: Any) -> Detector:
        """A detector on this session."""
        plan = self.plan.changed(changes)
        registers = self.bundle.tables(plan)[0].weights.shape[1]
        return Detector(self.bundle, plan, self.open(guided=plan.guidance > 0, registers=registers))

    def reference(self, **changes: Any) -> Detector:
        """The same in FP32 on the CPU."""
        return Detector.load(self.bundle, self.plan.changed(changes), batch=BATCH, threads=1)


def why_not(backend: Backend, bundle: Bundle | None, precision: Precision) -> str:
    """The reason a backend cannot be used; "" where it can."""
    found = next(entry for entry in examine_backends(bundle, precision, BATCH) if entry.backend == backend)
    return "" if found.usable else found.reason


ALL: list[tuple[str, Precision]] = [
    (backend, precision) for backend in (*BACKENDS, ON_CPU) for precision in AGAINST_FP32
]
REASONS = {variant: "" if variant[0] == ON_CPU else why_not(variant[0], None, variant[1]) for variant in ALL}
VARIANTS = [
    pytest.param(variant, marks=() if variant[0] in ("onnxruntime-cpu", ON_CPU) else pytest.mark.gpu)
    for variant in ALL
    if not REASONS[variant]
]


@pytest.mark.gpu
def test_a_variant_that_cannot_run_here_is_refused(small_bundle: Bundle) -> None:
    """Skipped then, with the reasons; all other tests of this file run on the rest."""
    left_out = {f"{backend}-{precision}": reason for (backend, precision), reason in REASONS.items() if reason}
    for variant in left_out:
        backend, _, precision = variant.rpartition("-")
        with pytest.raises(DiffoodError):
            open_session(small_bundle, backend, precision, guided=True, registers=0, batch=BATCH, threads=1)
    if left_out:
        pytest.skip("; ".join(f"{variant}: {reason}" for variant, reason in left_out.items()))


@pytest.fixture(scope="module", params=VARIANTS, ids="-".join)
def opened(
    request: pytest.FixtureRequest,
    small_bundle: Bundle,
    clothes: npt.NDArray[np.uint8],
    tmp_path_factory: pytest.TempPathFactory,
) -> Opened:
    """Each backend that runs here, in FP32 on small trained models and in FP16 on random ones."""
    backend, precision = request.param
    bundle = small_bundle if precision == "fp32" else request.getfixturevalue("half_bundle")
    images = from_pixels(clothes[: 2 * BATCH + 1, None])
    if precision == "fp16":
        images = np.ascontiguousarray(images[:, :, 10:18, 10:18])
    if backend == ON_CPU:
        return Opened(bundle, precision, images, lambda **given: bound_on_cpu(bundle, precision, **given))
    if backend in ("tensorrt", "tensorrt-rtx"):
        bundle = with_engine(bundle, backend, precision, tmp_path_factory.mktemp("engines") / "bundle")
    assert not why_not(backend, bundle, precision)

    def open_here(*, guided: bool, registers: int) -> Session:
        return open_session(bundle, backend, precision, guided=guided, registers=registers, batch=BATCH, threads=1)

    return Opened(bundle, precision, images, open_here)


def with_engine(bundle: Bundle, library: Any, precision: Precision, folder: Path) -> Bundle:
    """A copy of the bundle with an engine for this machine's GPU, built by the command that the refusal names."""
    copied = open_bundle(Path(shutil.copytree(bundle.path, folder)))
    command = rebuild_command(copied, load_library(library).machine, precision, BATCH)
    subprocess.run([sys.executable, "-m", *shlex.split(command)], check=True, timeout=1200)
    return copied


def bound_on_cpu(bundle: Bundle, precision: Precision, **given: Any) -> Session:
    """The CUDA session, told to use the CPU's provider and memory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxruntime_cuda, "PROVIDER", "CPUExecutionProvider")
        patch.setattr(onnxruntime_cuda, "DEVICE", "cpu")
        patch.setattr(onnxruntime_cuda, "OPTIONS", {})
        return onnxruntime_cuda.OnnxRuntimeCudaSession(bundle, precision=precision, batch=BATCH, **given)


@pytest.fixture(scope="module")
def session(opened: Opened) -> Session:
    """The guided session without registers."""
    return opened.open(guided=True, registers=0)


def rows(seed: int, registers: int = 0) -> StepInputs:
    """One step of lanes at different times, with different labels and guidance."""
    random = np.random.default_rng(seed)
    return StepInputs(
        time=random.integers(0, STEPS, BATCH).astype(np.float32),
        label=random.integers(0, 3, BATCH),
        guidance=random.uniform(0, 3, BATCH).astype(np.float32),
        coefficients=np.tile(np.array([0, 1, 1.1, -0.3], np.float32), (BATCH, 1)),
        weights=np.zeros((BATCH, registers), np.float32),
        store=np.full(BATCH, NO_REGISTER, np.int64),
    )


def permuted(inputs: StepInputs, order: npt.NDArray[np.int64]) -> StepInputs:
    """The same rows in other lanes."""
    return StepInputs(**{name: np.ascontiguousarray(value[order]) for name, value in vars(inputs).items()})


def stepped(session: Session, images: Array, inputs: StepInputs) -> Array:
    """The lanes' images after one step."""
    for lane, x in enumerate(images):
        session.put(lane, x)
    session.step(inputs)
    return np.stack([session.take(lane) for lane in range(len(images))])


def assert_close(found: Array, wanted: Array, limit: float) -> None:
    """Equal within `limit` of the largest wanted value."""
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=0, atol=limit * float(np.abs(wanted).max(initial=1)))


@pytest.fixture(scope="module", params=VARIANTS, ids="-".join)
def latent_session(
    request: pytest.FixtureRequest, dit_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> Session:
    """Each backend and precision that runs here, on a bundle with an autoencoder."""
    backend, precision = request.param
    if backend == ON_CPU:
        return bound_on_cpu(dit_bundle, precision, guided=True, registers=0)
    bundle = dit_bundle
    if backend in ("tensorrt", "tensorrt-rtx"):
        bundle = with_engine(bundle, backend, precision, tmp_path_factory.mktemp("engines") / "bundle")
    return open_session(bundle, backend, precision, guided=True, registers=0, batch=BATCH, threads=1)


def test_latents_of_any_number_of_images_are_those_of_fp32_on_the_cpu(
    latent_session: Session, dit_bundle: Bundle, clothes: npt.NDArray[np.uint8], subtests: pytest.Subtests
) -> None:
    for count in [0, 1, BATCH, 2 * BATCH + 1]:
        with subtests.test(count=count):
            exact = open_session(
                dit_bundle, "onnxruntime-cpu", "fp32", guided=True, registers=0, batch=BATCH, threads=1
            )
            x, limit = from_pixels(clothes[:count, None]), AGAINST_FP32[latent_session.precision]
            z = exact.encode(x)
            assert z.shape == (count, *dit_bundle.manifest.lane_shape)
            found = latent_session.encode(x)
            assert_close(found, z, limit)
            assert_close(latent_session.decode(z), exact.decode(z), limit)
            kept = found.copy()
            latent_session.encode(from_pixels(clothes[5 : 5 + BATCH, None]))
            np.testing.assert_array_equal(found, kept)


def test_lanes_hold_latents(latent_session: Session, dit_bundle: Bundle) -> None:
    exact = open_session(dit_bundle, "onnxruntime-cpu", "fp32", guided=True, registers=0, batch=BATCH, threads=1)
    latents = np.random.default_rng(0).standard_normal((BATCH, *dit_bundle.manifest.lane_shape), np.float32)
    for lane, z in enumerate(latents):
        latent_session.put(lane, z)
    for lane in (2, 0, 3, 1):
        np.testing.assert_array_equal(latent_session.take(lane), latents[lane])
    limit = AGAINST_FP32[latent_session.precision]
    assert_close(stepped(latent_session, latents, rows(0)), stepped(exact, latents, rows(0)), limit)


def test_a_session_says_what_it_is(opened: Opened, session: Session) -> None:
    assert (session.precision, session.batch) == (opened.precision, BATCH)
    assert session.backend in BACKENDS
    assert (session.engine_sha256 is None) == session.backend.startswith("onnxruntime")
    assert (session.threads > 0) == (session.backend == "onnxruntime-cpu")


def test_classify_takes_any_number_of_images(opened: Opened, session: Session, subtests: pytest.Subtests) -> None:
    for count in [0, 1, BATCH - 1, BATCH, BATCH + 1, 2 * BATCH + 1]:
        with subtests.test(count=count):
            whole, part = session.classify(opened.images), session.classify(opened.images[:count])
            manifest = opened.bundle.manifest
            assert part.logits.shape == (count, len(manifest.class_names))
            assert part.features.shape == (count, manifest.feature_count)
            assert_close(part.logits, whole.logits[:count], REPEATED)
            assert_close(part.features, whole.features[:count], REPEATED)
            assert len(np.unique(whole.logits[:, 0])) == len(opened.images)  # each image has its own row


def test_results_are_the_callers_own(opened: Opened, session: Session) -> None:
    first, images = session.classify(opened.images[:2]), opened.images
    kept = first.logits.copy(), first.features.copy()
    session.put(0, images[0])
    taken = session.take(0)
    session.classify(images[2:6])
    session.put(0, images[1])
    session.step(rows(0))
    np.testing.assert_array_equal(first.logits, kept[0])
    np.testing.assert_array_equal(first.features, kept[1])
    np.testing.assert_array_equal(taken, images[0])


def test_what_is_put_into_a_lane_is_taken_from_it(opened: Opened, session: Session) -> None:
    for lane in range(BATCH):
        session.put(lane, opened.images[lane])
    session.put(1, opened.images[BATCH])
    for lane in (3, 1, 0, 2, 1):
        np.testing.assert_array_equal(session.take(lane), opened.images[BATCH if lane == 1 else lane])


def test_a_lane_put_between_steps_leaves_the_others_alone(opened: Opened, session: Session) -> None:
    images, last = opened.images[:BATCH], opened.images[BATCH]
    first, second = rows(1), rows(2)
    alone = stepped(session, images, first)
    expected = stepped(session, np.stack([alone[0], last, *alone[2:]]), second)
    for lane, x in enumerate(images):
        session.put(lane, x)
    session.step(first)
    session.put(1, last)
    session.step(second)
    assert_close(np.stack([session.take(lane) for lane in range(BATCH)]), expected, REPEATED)


def test_an_idle_lane_keeps_its_image(opened: Opened, session: Session) -> None:
    inputs = rows(3)
    inputs.coefficients[2] = (0, 1, 1, 0)
    found = stepped(session, opened.images[:BATCH], inputs)
    np.testing.assert_array_equal(found[2], opened.images[2])
    assert np.abs(found[1] - opened.images[1]).max() > 0.01


def test_a_step_does_not_depend_on_the_lane(opened: Opened, session: Session) -> None:
    images, order = opened.images[:BATCH], np.array([2, 0, 3, 1])
    inputs = rows(4)
    found = stepped(session, images[order], permuted(inputs, order))
    assert_close(found, stepped(session, images, inputs)[order], REPEATED)


def test_classify_and_step_are_those_of_fp32_on_the_cpu(opened: Opened, session: Session) -> None:
    reference, limit = opened.reference().session, AGAINST_FP32[opened.precision]
    found, wanted = session.classify(opened.images), reference.classify(opened.images)
    assert_close(found.logits, wanted.logits, limit)
    assert_close(found.features, wanted.features, limit)
    for seed in range(3):
        inputs, images = rows(seed), opened.images[seed : seed + BATCH]
        assert_close(stepped(session, images, inputs), stepped(reference, images, inputs), limit)


def test_scores_are_the_images_own_and_those_of_fp32(opened: Opened, subtests: pytest.Subtests) -> None:
    for case, changes in {
        "ddim": {},
        "pndm4": {"sampler": "pndm4"},
        "reference pndm2": {"sampler": "pndm2", "schedule": "reference"},
        "unguided": {"guidance": 0.0, "space": "features"},
    }.items():
        with subtests.test(case=case):
            detector, images = opened.detector(**changes), opened.images[: BATCH + 1]
            found = detector.score_prepared(images)
            order = np.random.default_rng(0).permutation(len(images))
            again = detector.score_prepared(images[order])
            np.testing.assert_allclose(again.by_start, found.by_start[order], rtol=REPEATED, atol=REPEATED)
            wanted = opened.reference(**changes).score_prepared(images)
            assert (wanted.by_start > 0).all()
            np.testing.assert_allclose(found.by_start, wanted.by_start, rtol=0, atol=2 * AGAINST_FP32[opened.precision])
