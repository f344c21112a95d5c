"""Images in, scores and verdicts out: the one object a Python user needs."""

import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np

from diffood.errors import CalibrationError, UsageError
from diffood.runtime.assembly.recipe import list_stages
from diffood.runtime.backends import Backend, BackendChoice
from diffood.runtime.bundle.bundle import Bundle, Precision, open_bundle
from diffood.runtime.bundle.calibration import (
    Calibration,
    find_calibration,
    fingerprint_of,
    load_calibrated_fusion,
    load_calibration,
)
from diffood.runtime.bundle.fusion import Fusion
from diffood.runtime.bundle.parity import require_calibrated
from diffood.runtime.bundle.trust import asked_by_environment
from diffood.runtime.certificate import AS_CALIBRATED, Certificate, ThresholdChoice, certificate_of, thresholds_of
from diffood.runtime.decision import DecisionRule
from diffood.runtime.halving import open_halving
from diffood.runtime.images.decode import DEFAULT_LIMITS, ImageLimits
from diffood.runtime.images.pixels import Pixels
from diffood.runtime.inputs.given import Images, list_given
from diffood.runtime.item_pass import pass_turns
from diffood.runtime.judge import FusionJudge, never_ends
from diffood.runtime.method.plan import Plan
from diffood.runtime.method.witnesses.definition import Evidence
from diffood.runtime.printable import escape_for_terminal, shell_word
from diffood.runtime.results import ImageScore, ScoredImage, Scores, Verdicts, collect_scores, collect_verdicts
from diffood.runtime.sessions import Session, SessionRequest
from diffood.runtime.sessions.backends import open_session
from diffood.runtime.sessions.choice import (
    EngineCandidate,
    PrecisionChoice,
    describe_engine,
    list_candidates,
    open_first,
)
from diffood.runtime.staged import Judge, run_stages
from diffood.runtime.turns import SharedSession, TurnWork

DEFAULT_BATCH = 32
BATCHES_PER_TURN = 4  # so that those of their images that go on to a later stage fill its batches
MOST_TURN_BYTES = 2**28  # of images and their denoised versions, above which a turn has fewer batches

log = logging.getLogger(__name__)

Key = TypeVar("Key")


class Detector:
    """A bundle opened for scoring with one plan on one backend.

    Any number of threads may use it: they take turns, and images that wait at the same time share a turn. It belongs to
    the process that opened it.

    Attributes:
        bundle: The bundle.
        plan: What fixes a score, apart from the models.
        fusion: How witnesses are combined, None for a plan of one witness.
        fingerprint: Everything its scores depend on.
        evaluations: UNet evaluations of an image that goes through all repeats.
        why: Why this backend and precision; "" if they were given.
    """

    def __init__(
        self,
        bundle: Bundle,
        plan: Plan,
        session: Session | SharedSession,
        fusion: Fusion | None = None,
        *,
        why: str = "",
        calibration: Calibration | None = None,
        choice: ThresholdChoice = AS_CALIBRATED,
    ) -> None:
        if fusion is not None and (problem := fusion.record.mismatch(plan)):
            raise UsageError(f"{problem}: give the fusion that was fitted for this plan.")
        self.bundle, self.plan, self.fusion, self.why = bundle, plan, fusion, why
        self._calibration, self._choice = calibration, choice
        self._shared = session if isinstance(session, SharedSession) else SharedSession(session)
        self._stages, self._judge = list_stages(plan), FusionJudge(plan, fusion)
        tables = bundle.tables(plan)
        self._spent = [plan.evaluations(tables, stage.last) for stage in self._stages]
        self.evaluations = plan.evaluations(tables)
        self.fingerprint = fingerprint_of(
            bundle,
            plan,
            self.session.precision,
            self.session.backend,
            self.session.engine_sha256,
            fusion.record.sha256 if fusion else None,
        )

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
        halve_batch: bool = False,
        threshold: float | None = None,
        fpr: float | None = None,
        trust: Sequence[str | Path] = (),
        expect_digest: str | None = None,
    ) -> "Detector":
        """Open a bundle folder.

        Args:
            path: The folder.
            plan: A plan or the name of one; None: the calibration's, or the bundle's default without one.
            backend: "auto": the best this machine has for which the calibration is valid.
            precision: None: the calibration's, FP32 without one; "auto": the fastest that passed `diffood verify`.
            batch: Images that the engine works on at once; on a GPU, of every call.
            threads: Of the engine; 0: all cores.
            halve_batch: Continue with half the batch when the engine runs out of memory.
            threshold: Flag scores above this instead of the calibrated threshold.
            fpr: Choose the threshold for this false-alarm rate instead of the calibrated one.
            trust: Files of public keys, one of which must have signed each file of the bundle; none: DIFFOOD_TRUST's.
            expect_digest: The digest that the bundle must have, as `diffood inspect` prints it.

        Raises:
            BundleError: The bundle is damaged or foreign, not signed as asked, or changed since.
            UsageError: An unknown plan, an impossible batch, or no engine here can run it.
            MissingExtraError: A library of the backend is not installed.
        """
        choice = ThresholdChoice(threshold, fpr)
        bundle = open_bundle(path, asked_by_environment().updated(trust, expect_digest))
        calibration = find_calibration(bundle)
        if plan is None and calibration is not None:
            plan = calibration.fingerprint.plan
        chosen = plan if isinstance(plan, Plan) else bundle.plan(plan)
        require_size(batch, threads)
        if calibration is not None and calibration.fingerprint.plan != chosen:
            calibration = None  # it is valid on no backend
        candidates = list_candidates(bundle, calibration, backend, precision, batch, chosen)
        fusion = load_calibrated_fusion(bundle, calibration)
        choosing = "auto" in (backend, precision)

        def load(candidate: EngineCandidate) -> Detector:
            detector = cls.load(
                bundle,
                chosen,
                backend=candidate.backend,
                precision=candidate.precision,
                batch=batch,
                threads=threads,
                fusion=fusion,
                why=candidate.why,
                halve_batch=halve_batch,
                calibration=calibration,
                choice=choice,
            )
            if calibration is not None and choosing:
                require_calibrated(bundle, calibration, detector.fingerprint)
            return detector

        detector = open_first(bundle, candidates, load, choosing=choosing)
        session = detector.session
        log.info("Opened %s: %s", path, describe_engine(session.precision, session.backend, detector.why))
        return detector

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
        why: str = "",
        halve_batch: bool = False,
        calibration: Calibration | None = None,
        choice: ThresholdChoice = AS_CALIBRATED,
    ) -> "Detector":
        """Load the graphs that a plan needs from an opened bundle, on this backend and in this precision.

        Args:
            bundle: The bundle.
            plan: The plan.
            backend: Name of the backend.
            precision: Of the graphs.
            batch: Images that the engine works on at once; on a GPU, of every call.
            threads: Of the engine; 0: all cores.
            fusion: What a calibration fitted, for a plan that fuses witnesses; without it only `observe` works.
            why: Why this backend and precision.
            halve_batch: Continue with half the batch when the engine runs out of memory.
            calibration: What gives the verdicts; None: the bundle's at the time it is asked for.
            choice: A threshold in place of the calibrated ones.
        """
        require_size(batch, threads)

        def reopen(rows: int) -> Session:
            return open_session(backend, SessionRequest(bundle, plan, precision, rows, threads))

        def halve(rows: int) -> Session:
            return open_halving(reopen, rows)

        session = SharedSession(halve(batch), halve) if halve_batch else SharedSession(reopen(batch))
        if session.batch != batch:
            why = f"{why}, in batches of {session.batch}: {batch} images do not fit into memory".lstrip(", ")
        return cls(bundle, plan, session, fusion, why=why, calibration=calibration, choice=choice)

    def with_fusion(self, fusion: Fusion) -> "Detector":
        """The same detector on the same session, with this fusion."""
        return Detector(self.bundle, self.plan, self._shared, fusion, why=self.why)

    @property
    def session(self) -> Session:
        """The engine. Not for use while another thread uses the detector."""
        return self._shared.session

    def close(self) -> None:
        """Free the engine, after what is under way; also done at the end of a `with` block. Later calls are refused."""
        self._shared.close()

    def __enter__(self) -> "Detector":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise UsageError(
            "A Detector holds a running engine and cannot be pickled or copied: give the other process "
            f"{str(self.bundle.path)!r} and call Detector.open there."
        )

    def calibration(self) -> Calibration:
        """The calibration this was opened with, or else the bundle's now.

        One file is read once: the verdicts of a detector are those of the calibration its fusion came from, whatever
        becomes of the bundle. Raises CalibrationError if there is none or it is not valid for what runs.
        """
        calibration = self._calibration or load_calibration(self.bundle)
        require_calibrated(self.bundle, calibration, self.fingerprint)
        return calibration

    @property
    def certificate(self) -> Certificate:
        """What holds for the verdicts of `predict`. Raises CalibrationError as `predict` does."""
        return certificate_of(self.bundle, self.calibration(), self._choice)

    def score(self, images: Images, limits: ImageLimits = DEFAULT_LIMITS) -> Scores:
        """Scores of one or many images; one that cannot be used has its reason in `error`.

        Args:
            images: As `predict` takes them.
            limits: Of one image.

        Raises:
            UsageError: Something given is no image, or has another type, shape or range.
            CalibrationError: The plan fuses witnesses and the bundle is not calibrated.
        """
        return collect_scores(self._pass(images, limits), self.plan)

    def score_pixels(self, pixels: Pixels) -> Scores:
        """Scores of images of the models' own shape, uint8 [N, C, H, W]."""
        found = self.stream(enumerate(pixels))
        return collect_scores((ScoredImage(str(key), result) for key, result in found), self.plan)

    def predict(self, images: Images, limits: ImageLimits = DEFAULT_LIMITS) -> Verdicts:
        """Verdicts on one or many images; one that cannot be used has its reason in `error`.

        Args:
            images: A path (of a file, a folder, or what else `serve-batch` takes as input), the bytes of an image file
                or a file open for reading them, a Pillow image, an array or tensor, or an iterable of these. Arrays
                are uint8 [H, W], [H, W, C], [C, H, W], or a stack [N, H, W, C] or [N, C, H, W], of any size; grey, with
                alpha, RGB or RGBA; they are resized and converted as files are.
            limits: Of one image.

        Raises:
            UsageError: Something given is no image, or has another type, shape or range.
            CalibrationError: The bundle is not calibrated for this plan.
        """
        calibration, names = self.calibration(), self.bundle.manifest.class_names
        rule = DecisionRule.of(calibration, thresholds_of(calibration, self._choice, len(names)))
        return collect_verdicts(self._pass(images, limits), rule, names)

    def _pass(self, images: Images, limits: ImageLimits) -> Iterator[ScoredImage]:
        shape = self.bundle.manifest.image
        turns = pass_turns(self.stream, list_given(images, shape), shape, self.turn, limits)
        for one in itertools.chain.from_iterable(turns):
            loaded = one.loaded
            if loaded.error:
                log.warning("%s was refused: %s", escape_for_terminal(one.source.id), loaded.error)
            elif loaded.note and log.isEnabledFor(logging.INFO):
                log.info("%s: %s", escape_for_terminal(one.source.id), loaded.note)
            yield ScoredImage(one.source.id, one.result, loaded.note, loaded.error)

    @property
    def turn(self) -> int:
        """Images that are taken, and given, at a time."""
        image, batch = self.bundle.manifest.image, self._shared.batch
        size = image.channels * image.height * image.width * 5  # uint8, and float32 of its denoised version
        return batch * max(1, min(BATCHES_PER_TURN, MOST_TURN_BYTES // (batch * size)))

    def stream(self, items: Iterable[tuple[Key, Pixels]]) -> Iterator[tuple[Key, ImageScore]]:
        """Score (key, pixels uint8 [C, H, W] of the models' shape) pairs lazily and yield them in their order.

        Memory is bounded by the batch, not by the number of items. Raises CalibrationError as `score` does, UsageError
        for another shape or type, and EngineMemoryError if the engine runs out of memory: even for one image, if the
        detector may halve its batch.
        """
        if self.plan.fused and self.fusion is None:
            raise CalibrationError(
                f"The plan fuses {', '.join(self.plan.witnesses)}, which `diffood calibrate "
                f"{shell_word(self.bundle.path)} --images DIR` fits on in-distribution images: calibrate first, or use "
                'the paper\'s score alone, plan="plain".'
            )
        return self._by_turns(self._score, items)

    def observe(self, items: Iterable[tuple[Key, Pixels]]) -> Iterator[tuple[Key, Evidence]]:
        """The evidence of each item after all repeats, whatever the stages, lazily and in order."""
        return ((key, found.evidence) for key, found in self._by_turns(self._observe, items))

    def _by_turns(self, work: TurnWork, items: Iterable[tuple[Key, Pixels]]) -> Iterator[tuple[Key, Any]]:
        """The results of `work`, a turn for every few batches of items."""
        items, shape = iter(items), self.bundle.manifest.image
        planes = (shape.channels, shape.height, shape.width)
        while taken := list(itertools.islice(items, self.turn)):
            for key, pixels in taken:
                if pixels.shape != planes or pixels.dtype != np.uint8:
                    raise UsageError(f"Image {key} is {pixels.dtype} {pixels.shape}; give uint8 {planes}.")
            found = self._shared.run(work, [pixels for _, pixels in taken])
            yield from zip((key for key, _ in taken), found, strict=True)

    def _score(self, session: Session, images: Sequence[Pixels]) -> list[ImageScore]:
        return self._run(session, images, self._judge)

    def _observe(self, session: Session, images: Sequence[Pixels]) -> list[ImageScore]:
        return self._run(session, images, never_ends)

    def _run(self, session: Session, images: Sequence[Pixels], judge: Judge) -> list[ImageScore]:
        found: dict[int, ImageScore] = {}
        for part in run_stages(session, self._stages, np.stack(images), judge):
            judged, spent = part.judgement, self._spent[part.stage.number]
            scores, stage = judged.scores.tolist(), part.stage.number + 1
            predicted, confidence = part.evidence.predicted.tolist(), part.evidence.confidence.tolist()
            for place, row in enumerate(part.rows.tolist()):
                found[row] = ImageScore(
                    scores[place],
                    judged.witnesses[place],
                    part.evidence[place],
                    predicted[place],
                    confidence[place],
                    stage,
                    spent,
                )
        return [found[row] for row in range(len(images))]


def require_size(batch: int, threads: int) -> None:
    """Raise UsageError for an impossible number of images or threads."""
    if not 1 <= batch <= 4096:
        raise UsageError(f"A batch of {batch} images is not possible: choose 1 to 4096.")
    if not 0 <= threads <= 1024:
        raise UsageError(f"{threads} threads are not possible: choose 1 to 1024, or 0 for all cores.")
