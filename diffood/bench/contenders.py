"""Who is timed without torch: our detector with each plan, precision and backend, and a plain ONNX Runtime loop."""

import itertools
import math
import os
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from onnxruntime import InferenceSession, SessionOptions

from diffood.bench.compare import Contender, Meter
from diffood.runtime.backends import Backend, BackendChoice
from diffood.runtime.bundle.bundle import CALIBRATION, Bundle, Precision, Role, open_bundle
from diffood.runtime.bundle.calibration import Calibration, load_calibrated_fusion, load_calibration
from diffood.runtime.detector import Detector
from diffood.runtime.lanes import moving
from diffood.runtime.method.noise import content_key, draw_noise, mix
from diffood.runtime.method.plan import Plan
from diffood.runtime.method.schedule import epsilon_coefficients, noise_scale
from diffood.runtime.method.scoring import jumps
from diffood.runtime.sessions import Array, Classified, Session, StepInputs
from diffood.runtime.sessions.choice import list_candidates
from diffood.runtime.sessions.graphs import autoencoder_roles, read_graph
from diffood.runtime.sessions.onnxruntime import give_weights

CALIBRATED = "calibrated"  # the name of a calibration's plan where the bundle has none for it
UNCALIBRATED = "not calibrated for this plan: the pass is timed, without making one score of its witnesses"

Given = TypeVar("Given")
Result = TypeVar("Result")


class MeteredSession:
    """A session that adds up what its engine's calls take and how many rows of its steps do work."""

    def __init__(self, session: Session) -> None:
        self.session, self.meter = session, Meter()
        self.backend, self.precision = session.backend, session.precision
        self.engine_sha256, self.batch, self.threads = session.engine_sha256, session.batch, session.threads

    def classify(self, x: Array) -> Classified:
        """See Session.classify."""
        return self._timed(self.session.classify, x)

    def encode(self, x: Array) -> Array:
        """See Session.encode."""
        return self._timed(self.session.encode, x)

    def decode(self, z: Array) -> Array:
        """See Session.decode."""
        return self._timed(self.session.decode, z)

    def put(self, lane: int, x: Array) -> None:
        """See Session.put."""
        self.session.put(lane, x)

    def step(self, inputs: StepInputs) -> None:
        """See Session.step."""
        self._timed(self.session.step, inputs)
        self.meter.rows += self.batch
        self.meter.busy += int(np.count_nonzero(moving(inputs)))

    def take(self, lane: int) -> Array:
        """See Session.take."""
        return self.session.take(lane)

    def _timed(self, call: Callable[[Given], Result], given: Given) -> Result:
        began = time.perf_counter()
        result = call(given)
        self.meter.seconds += time.perf_counter() - began
        return result


def plans_of(bundle: Bundle, names: Collection[str] = ()) -> dict[str, Plan]:
    """The plans named, or all there are: the manifest's, and the calibration's where it is another.

    Raises UsageError for a name that is unknown.
    """
    plans = dict(bundle.manifest.plans)
    calibration = _calibration(bundle)
    if calibration and calibration.fingerprint.plan not in plans.values():
        plans[CALIBRATED] = calibration.fingerprint.plan
    return {name: plans[name] if name in plans else bundle.plan(name) for name in names or plans}


def our_contenders(
    bundle: Bundle,
    plans: Mapping[str, Plan],
    *,
    backend: BackendChoice = "auto",
    precisions: Collection[Precision] = (),
    batch: int,
    threads: int,
) -> tuple[list[Contender], list[tuple[str, str]]]:
    """The detector with each plan on every backend and precision that can run here; what cannot, with its reason."""
    contenders, skipped, calibration = [], [], _calibration(bundle)
    calibrated = calibration.fingerprint.plan if calibration else None
    for precision in precisions or bundle.precisions:
        candidates = list_candidates(bundle, None, backend, precision, batch)
        skipped += [(f"diffood, {name}", reason) for name, reason in candidates.skipped]
        for found, (name, plan) in itertools.product(candidates.usable, plans.items()):
            lanes = plan.repeats * len(plan.start_times)
            contenders.append(
                Contender(
                    name=f"diffood, {name} plan, {precision} on {found.backend}",
                    open=partial(open_detector, bundle.path, plan, found.backend, precision, threads),
                    rows=batch,
                    chunk=batch,
                    single_rows=tuple(sorted({1, lanes})),
                    note=UNCALIBRATED if plan.fused and plan != calibrated else "",
                )
            )
    return contenders, skipped


def open_detector(
    path: Path, plan: Plan, backend: Backend, precision: Precision, threads: int, rows: int
) -> "MeteredDetector":
    """A detector with `rows` lanes, as `serve-batch` would run it; without its calibration where none fits the plan."""
    bundle = open_bundle(path)
    calibration = _calibration(bundle)
    holds = calibration is not None and calibration.fingerprint.plan == plan
    fusion = load_calibrated_fusion(bundle, calibration) if holds else None
    opened = Detector.load(bundle, plan, backend=backend, precision=precision, batch=rows, threads=threads)
    session = MeteredSession(opened.session)
    return MeteredDetector(Detector(bundle, plan, session, fusion), session.meter)


@dataclass(frozen=True)
class MeteredDetector:
    """A detector on a metered session; evaluations are counted where they happen, not taken from the plan."""

    detector: Detector
    meter: Meter

    def run(self, x: Array) -> int:
        """See Runner.run."""
        detector, before = self.detector, self.meter.busy
        unfitted = detector.plan.fused and detector.fusion is None
        for _ in detector.observe(enumerate(x)) if unfitted else detector.stream(enumerate(x)):
            pass
        return (2 if detector.plan.guidance > 0 else 1) * (self.meter.busy - before)


def _calibration(bundle: Bundle) -> Calibration | None:
    return load_calibration(bundle) if os.path.lexists(bundle.path / CALIBRATION) else None


def plain_contender(bundle: Bundle, plan: Plan, *, batch: int, threads: int) -> Contender:
    """The loop most people write around an exported UNet: ONNX Runtime a step, guidance and update in numpy."""
    chunk = max(1, batch // plan.repeats)
    return Contender(
        name="official loop, ONNX Runtime a step, fp32",
        open=partial(open_plain_loop, bundle.path, plan, threads),
        rows=batch,
        chunk=chunk,
        single_rows=(plan.repeats,),
        note="guidance and update in numpy",
    )


def open_plain_loop(path: Path, plan: Plan, threads: int, rows: int) -> "PlainLoop":
    """The loop by hand, `rows` // repeats images at a time."""
    return PlainLoop(open_bundle(path), plan, threads, rows)


class PlainLoop:
    """DDIM by hand around the bundle's FP32 graphs, of which it takes the logits and the noise prediction alone."""

    def __init__(self, bundle: Bundle, plan: Plan, threads: int, rows: int) -> None:
        self.bundle, self.plan, self.images = bundle, plan, max(1, rows // plan.repeats)
        self.meter, self.evaluations = Meter(), 0
        self._grid, self._null = plan.grid(bundle.alpha_bar), bundle.manifest.unet.label_count - 1
        self._classify, self._unet = (_start(bundle, role, threads) for role in ("classify", "step_plain"))
        self._unet_inputs = {node.name for node in self._unet.get_inputs()}
        self._autoencoder = {role: _start(bundle, role, threads) for role in autoencoder_roles(bundle)}

    def run(self, x: Array) -> int:
        """See Runner.run."""
        before = self.evaluations
        for first in range(0, len(x), self.images):
            self.score(x[first : first + self.images])
        return self.evaluations - before

    def score(self, x: Array) -> npt.NDArray[np.float64]:
        """The jump [N, T] of images float32 [N, C, H, W]."""
        plan, count = self.plan, len(x)
        logits, shape = self.classify(x), self.bundle.manifest.lane_shape
        label = np.tile(logits.argmax(axis=1), plan.repeats)
        noise = np.concatenate(
            [
                np.stack([draw_noise(content_key(image), plan.seed, repeat, shape) for image in x])
                for repeat in range(plan.repeats)
            ]
        )
        repeated = np.tile(self.encode(x), (plan.repeats, 1, 1, 1))
        origin = np.tile(logits, (plan.repeats, 1))
        if self._grid.origin_scale()[1]:
            origin = self.look(mix(self._grid.origin_scale(), repeated, noise))
        after = []
        for start in plan.start_times:
            noised = mix(noise_scale(self._grid.level(start)), repeated, noise)
            after.append(self.look(self.denoise(noised, label, start)))
        found = [
            jumps(origin[image::count], np.stack(after, 1)[image::count], plan.norm, plan.compare).mean(axis=0)
            for image in range(count)
        ]
        return np.stack(found)

    def denoise(self, x: Array, label: npt.NDArray[np.int64], start: int) -> Array:
        """x̂ of images or latents that are noised to `start`."""
        for here, there in itertools.pairwise([*range(start, 0, -self.plan.stride), 0]):
            p_x, p_m = epsilon_coefficients(self.bundle.manifest.unet.prediction, self._grid.level(here))
            row = np.tile(np.array([p_x, p_m, 1, 0], np.float32), (len(x), 1))
            time_asked, beta = np.full(len(x), self._grid.asked(here), np.float32), np.float32(self.plan.guidance)
            epsilon = self.epsilon(x, time_asked, label, row)
            if beta:
                null = np.full_like(label, self._null)
                epsilon = (1 + beta) * epsilon - beta * self.epsilon(x, time_asked, null, row)
            level, level_next = self._grid.level(here), self._grid.level(there)
            clean = (x - np.float32(math.sqrt(1 - level)) * epsilon) / np.float32(math.sqrt(level))
            x = np.float32(math.sqrt(level_next)) * clean + np.float32(math.sqrt(1 - level_next)) * epsilon
        return x

    def epsilon(self, x: Array, time_asked: Array, label: npt.NDArray[np.int64], row: Array) -> Array:
        """One evaluation of the UNet a row."""
        self.evaluations += len(x)
        self.meter.rows += len(x)
        self.meter.busy += len(x)
        feeds: dict[str, npt.NDArray[Any]] = {"x": x, "time": time_asked, "label": label, "coefficients": row}
        return self._ask(self._unet, "epsilon", {name: feeds[name] for name in self._unet_inputs})

    def encode(self, x: Array) -> Array:
        """What is noised of images: themselves, or latents."""
        return self._ask(self._autoencoder["encode"], "z", {"x": x}) if self._autoencoder else x

    def look(self, z: Array) -> Array:
        """Logits [N, K] of what was denoised or noised."""
        x = self._ask(self._autoencoder["decode"], "x", {"z": z}) if self._autoencoder else z
        return self.classify(np.clip(x, -1, 1))

    def classify(self, x: Array) -> Array:
        """Logits [N, K]."""
        return self._ask(self._classify, "logits", {"x": x})

    def _ask(self, session: InferenceSession, output: str, feeds: dict[str, npt.NDArray[Any]]) -> Array:
        began = time.perf_counter()
        result: Array = session.run([output], feeds)[0]
        self.meter.seconds += time.perf_counter() - began
        return result


def _start(bundle: Bundle, role: Role, threads: int) -> InferenceSession:
    """As its own documentation starts it; nothing of our session's settings."""
    options = SessionOptions()
    options.intra_op_num_threads = threads
    graph = read_graph(bundle, role, "fp32")
    give_weights(options, graph.outside)
    return InferenceSession(graph.model, options, providers=["CPUExecutionProvider"])
