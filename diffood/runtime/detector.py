"""Images in, scores and verdicts out: the one object a Python user needs. Decodes no files but through `images`."""

import gc
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from diffood.errors import CalibrationError, UsageError
from diffood.runtime.backends import Backend, BackendChoice
from diffood.runtime.bundle.bundle import CALIBRATION, Bundle, Precision, Role, open_bundle
from diffood.runtime.bundle.calibration import Calibration, Fingerprint, load_calibrated_fusion, load_calibration
from diffood.runtime.bundle.fusion import Fusion
from diffood.runtime.bundle.parity import require_calibrated
from diffood.runtime.decision import DecisionRule
from diffood.runtime.images.decode import DEFAULT_LIMITS, ImageLimits, load_image
from diffood.runtime.images.pixels import from_pixels
from diffood.runtime.method.plan import Plan
from diffood.runtime.method.scoring import Array
from diffood.runtime.method.witnesses.definition import Evidence
from diffood.runtime.method.witnesses.registry import measure
from diffood.runtime.passes import PassConfig, run_pass
from diffood.runtime.sessions import Session
from diffood.runtime.sessions.backends import open_session
from diffood.runtime.sessions.choice import PrecisionChoice, list_candidates, no_engine_error
from diffood.runtime.sparing import stream_sparing

DEFAULT_BATCH = 32
RANGE_SLACK = 1e-3  # rounding of a caller's own scaling

Key = TypeVar("Key")


@dataclass(frozen=True)
class ImageScore:
    """What one image gave. witnesses float64 [W]: the plan's, as measured; evidence: what they were measured on.

    stage: that at which it ended, from 1; evaluations: of the UNet.
    """

    score: float
    witnesses: npt.NDArray[np.float64]
    evidence: Evidence
    stage: int
    evaluations: int


@dataclass(frozen=True)
class Scores:
    """Scores of N images, in their order; higher is more out-of-distribution.

    score float64 [N], witnesses float64 [N, W] (one column a witness of the plan), by_start float64 [N, T] (the jump,
    one column a start time), predicted int64 [N] (class index), confidence float64 [N] (largest softmax probability),
    evaluations int64 [N] (UNet evaluations spent on it). What was not measured at an early stage is NaN.
    """

    score: npt.NDArray[np.float64]
    witnesses: npt.NDArray[np.float64]
    by_start: npt.NDArray[np.float64]
    predicted: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]
    evaluations: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Verdicts:
    """Verdicts on N files, in their order.

    is_ood bool [N], p_value float64 [N], score float64 [N], predicted int64 [N], threshold float64 [N] (that of the
    predicted class, or of all images); error: a reason for each file that was refused, else "". A refused file has
    is_ood True, NaN for numbers and -1 for its class: it was never shown to be in-distribution.
    """

    is_ood: npt.NDArray[np.bool_]
    p_value: npt.NDArray[np.float64]
    score: npt.NDArray[np.float64]
    predicted: npt.NDArray[np.int64]
    threshold: npt.NDArray[np.float64]
    error: tuple[str, ...]


class Detector:
    """A bundle opened for scoring with one plan on one backend.

    batch: rows of every engine call; threads: of the engine, 0 for all cores. Not for use by two threads at once.
    """

    def __init__(self, bundle: Bundle, plan: Plan, session: Session, fusion: Fusion | None = None) -> None:
        if fusion is not None and (problem := fusion.record.mismatch(plan)):
            raise UsageError(f"{problem}: give the fusion that was fitted for this plan.")
        self.bundle, self.plan, self.session, self.fusion = bundle, plan, session, fusion
        latent = bundle.manifest.latent is not None
        self._way = PassConfig(plan, bundle.tables(plan), plan.grid(bundle.alpha_bar).origin_scale(), latent)
        self.evaluations = plan.evaluations(self._way.tables)  # of an image that goes all the way
        self.spares_memory = False  # go on with half the rows where the engine finds no memory for all
        self.why = ""  # why this backend and precision, where `open` chose them

    @classmethod
    def open(
        cls,
        path: str | Path,
        plan: Plan | str | None = None,
        *,
        backend: BackendChoice = "auto",
        precision: PrecisionChoice | None = None,
        batch: int = DEFAULT_BATCH,
        threads: int = 0,
    ) -> "Detector":
        """Open a bundle folder. Without a plan: the calibration's if there is one, else the bundle's default.

        precision None: the calibration's, FP32 without one; "auto": the fastest that `diffood verify` let pass.
        backend "auto": the best this machine has for which the calibration holds. `why` tells what was chosen.

        Raises BundleError (damaged or foreign bundle), UsageError (unknown plan, impossible batch, nothing here can
        run it), MissingExtraError (a library of the backend that was asked for).
        """
        bundle = open_bundle(Path(path))
        calibration = load_calibration(bundle) if os.path.lexists(bundle.path / CALIBRATION) else None
        if plan is None and calibration is not None:
            plan = calibration.fingerprint.plan
        chosen = plan if isinstance(plan, Plan) else bundle.plan(plan)
        require_size(batch, threads)
        if calibration is not None and calibration.fingerprint.plan != chosen:
            calibration = None  # no backend can make it hold
        candidates = list_candidates(bundle, calibration, backend, precision, batch)
        fusion = load_calibrated_fusion(bundle, calibration)
        refused: CalibrationError | None = None
        for candidate in candidates.usable:
            detector = cls.load(
                bundle,
                chosen,
                backend=candidate.backend,
                precision=candidate.precision,
                batch=batch,
                threads=threads,
                fusion=fusion,
            )
            detector.why = candidate.why
            if calibration is None or "auto" not in (backend, precision):
                return detector
            try:
                require_calibrated(bundle, calibration, detector.fingerprint)
            except CalibrationError as error:
                refused = refused or error
            else:
                return detector
        raise refused or no_engine_error(bundle, candidates)

    @classmethod
    def load(
        cls,
        bundle: Bundle,
        plan: Plan,
        *,
        backend: Backend = "onnxruntime-cpu",
        precision: Precision = "fp32",
        batch: int = DEFAULT_BATCH,
        threads: int = 0,
        fusion: Fusion | None = None,
    ) -> "Detector":
        """Load the graphs a plan needs from an opened bundle, on the backend and in the precision named.

        fusion: what a calibration fitted, for a plan that fuses witnesses; without it `observe` alone works.
        """
        require_size(batch, threads)
        return cls(bundle, plan, _open_session(bundle, plan, backend, precision, batch, threads), fusion)

    def with_fusion(self, fusion: Fusion) -> "Detector":
        """The same detector, on the same session, that combines witnesses as `fusion` says."""
        detector = Detector(self.bundle, self.plan, self.session, fusion)
        detector.why = self.why
        return detector

    @property
    def fingerprint(self) -> Fingerprint:
        """All that the scores of this detector depend on."""
        manifest, precision = self.bundle.manifest, self.session.precision

        def sha256(role: Role) -> str:
            return self.bundle.sha256(self.bundle.graph(role, precision))

        return Fingerprint(
            classify_sha256=sha256("classify"),
            step_sha256=sha256("step_guided" if self.plan.guidance > 0 else "step_plain"),
            noise_levels_sha256=manifest.files[manifest.noise_levels].sha256,
            precision=precision,
            backend=self.session.backend,
            engine_sha256=self.session.engine_sha256,
            image=manifest.image,
            plan=self.plan,
            fusion_sha256=self.fusion.record.sha256 if self.fusion else None,
            encode_sha256=sha256("encode") if manifest.latent else None,
            decode_sha256=sha256("decode") if manifest.latent else None,
        )

    def calibration(self) -> Calibration:
        """Read the bundle's calibration; CalibrationError where there is none or it does not hold for what runs."""
        calibration = load_calibration(self.bundle)
        require_calibrated(self.bundle, calibration, self.fingerprint)
        return calibration

    def score(self, images: npt.NDArray[Any]) -> Scores:
        """Score N images: uint8 [N, H, W], [N, H, W, C] or [N, C, H, W], or float32 [N, C, H, W] in [-1, 1].

        Raises UsageError for another type or shape than the bundle's; arrays are never resized. CalibrationError for a
        plan that fuses witnesses in a bundle that was not calibrated.
        """
        x = self._as_input(np.asarray(images))
        scores = Scores(
            score=np.empty(len(x)),
            witnesses=np.empty((len(x), len(self.plan.witnesses))),
            by_start=np.empty((len(x), len(self.plan.start_times))),
            predicted=np.empty(len(x), np.int64),
            confidence=np.empty(len(x)),
            evaluations=np.empty(len(x), np.int64),
        )
        for index, result in self.stream(enumerate(x)):  # whose evidence, the denoised images, is let go at once
            scores.score[index], scores.witnesses[index] = result.score, result.witnesses
            scores.by_start[index] = result.evidence.by_start
            scores.predicted[index], scores.confidence[index] = result.evidence.predicted, result.evidence.confidence
            scores.evaluations[index] = result.evaluations
        return scores

    def predict(self, paths: Sequence[str | Path], limits: ImageLimits = DEFAULT_LIMITS) -> Verdicts:
        """Verdicts on image files; a file that cannot be used is reported in `error`, the others go on.

        Raises CalibrationError where the bundle is not calibrated for this plan.
        """
        rule = DecisionRule.of(self.calibration())
        errors = [""] * len(paths)
        score, predicted = np.full(len(paths), np.nan), np.full(len(paths), -1, np.int64)

        def readable() -> Iterator[tuple[int, Array]]:
            for index, path in enumerate(paths):
                loaded = load_image(Path(path), self.bundle.manifest.image, limits)
                if loaded.x is None:
                    errors[index] = loaded.error
                else:
                    yield index, loaded.x

        for index, result in self.stream(readable()):
            score[index], predicted[index] = result.score, result.evidence.predicted
        decisions = rule.decide(score, predicted)
        refused = np.array([bool(error) for error in errors], bool)
        return Verdicts(
            is_ood=decisions.is_ood,
            p_value=np.where(refused, np.nan, decisions.p_values),
            score=score,
            predicted=predicted,
            threshold=np.where(refused, np.nan, decisions.thresholds),
            error=tuple(errors),
        )

    def stream(self, items: Iterable[tuple[Key, Array]]) -> Iterator[tuple[Key, ImageScore]]:
        """Score (key, x float32 [C, H, W] in [-1, 1]) pairs lazily and yield them in their order.

        Memory is bounded by the batch, not by the number of items. Raises CalibrationError as `score` does, and
        EngineMemoryError where the engine finds no memory: with one row, where `spares_memory` is set.
        """
        if self.plan.fused and self.fusion is None:
            raise CalibrationError(
                f"The plan fuses {', '.join(self.plan.witnesses)}, which `diffood calibrate {self.bundle.path} "
                "--images DIR` fits on in-distribution images: calibrate first, or use the paper's score alone, "
                'plan="plain".'
            )
        if self.spares_memory:
            return stream_sparing(self._score, self._halve, items)
        return self._score(items)

    def _score(self, items: Iterable[tuple[Key, Array]]) -> Iterator[tuple[Key, ImageScore]]:
        return run_pass(self.session, self._way, items, self._judge)

    def _halve(self) -> bool:
        """Load the session anew for half the rows; False where there is but one."""
        backend, precision = self.session.backend, self.session.precision
        batch, threads = self.session.batch, self.session.threads
        if batch == 1:
            return False
        del self.session  # its memory first
        gc.collect()
        self.session = _open_session(self.bundle, self.plan, backend, precision, batch // 2, threads)
        return True

    def _judge(self, evidence: Evidence) -> tuple[ImageScore, bool]:
        if self.fusion is None:
            values = measure(self.plan.witnesses, evidence)
            score, ends = float(values[0]), False
        else:
            values = self.fusion.values(evidence)
            score = self.fusion.score(evidence, values)
            ends = self.fusion.ends(evidence, score)
        stage = 1 + sum(earlier < evidence.repeats for earlier in self.plan.stages)
        spent = self.plan.evaluations(self._way.tables, evidence.repeats)
        return ImageScore(score, values, evidence, stage, spent), ends

    def observe(self, items: Iterable[tuple[Key, Array]]) -> Iterator[tuple[Key, Evidence]]:
        """The pass itself, to its end whatever the stages: what it leaves of each item, lazily and in order."""
        return run_pass(self.session, self._way, items, lambda evidence: (evidence, False))

    def _as_input(self, images: npt.NDArray[Any]) -> Array:
        shape = self.bundle.manifest.image
        planes = (shape.channels, shape.height, shape.width)
        given = images.shape
        if images.dtype == np.uint8:
            if images.ndim == 3 and shape.channels == 1:
                images = images[:, None]
            elif images.ndim == 4 and images.shape[1:] == (*planes[1:], planes[0]) != planes:
                images = images.transpose(0, 3, 1, 2)
        if images.ndim != 4 or images.shape[1:] != planes or images.dtype not in (np.uint8, np.float32):
            raise UsageError(
                f"Images have shape {given} and type {images.dtype}; this bundle takes uint8 "
                f"[N, {shape.height}, {shape.width}, {shape.channels}] or float32 [N, {', '.join(map(str, planes))}] "
                "in [-1, 1]. Resize arrays before scoring; files are resized when read."
            )
        if images.dtype == np.uint8:
            return from_pixels(images)
        largest = float(np.abs(images[np.isfinite(images)]).max(initial=0))
        if largest > 1 + RANGE_SLACK:
            raise UsageError(
                f"float32 images must lie in [-1, 1]; a value of size {largest:g} was given. "
                "Use pixels / 127.5 - 1, or give uint8 pixels."
            )
        return np.ascontiguousarray(images, np.float32)


def _open_session(
    bundle: Bundle, plan: Plan, backend: Backend, precision: Precision, batch: int, threads: int
) -> Session:
    """A session with the graphs that a plan needs."""
    registers = bundle.tables(plan)[0].weights.shape[1]
    return open_session(
        bundle, backend, precision, guided=plan.guidance > 0, registers=registers, batch=batch, threads=threads
    )


def require_size(batch: int, threads: int) -> None:
    """UsageError where no engine can be asked for so many rows or threads."""
    if not 1 <= batch <= 4096:
        raise UsageError(f"A batch of {batch} rows is not possible: choose 1 to 4096.")
    if not 0 <= threads <= 1024:
        raise UsageError(f"{threads} threads are not possible: choose 1 to 1024, or 0 for all cores.")
