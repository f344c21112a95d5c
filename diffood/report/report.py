"""Collects what a report about a calibrated bundle shows; `report_page` makes a page of it. Scores nothing."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from diffood.calibration.calibrate import Calibrated
from diffood.calibration.checked import FloatArray
from diffood.calibration.evaluate import Evaluation
from diffood.calibration.metrics.by_class import ClassAlarms, alarms_by_class
from diffood.calibration.metrics.rates import FalseAlarms, false_alarms
from diffood.calibration.promises.contamination import Contamination
from diffood.calibration.scored_files import ScoredFiles
from diffood.errors import UsageError
from diffood.report.charts.rejection_curve import rejection_picture
from diffood.report.charts.roc_curve import roc_picture
from diffood.report.charts.score_axis import ScoreAxis, drawn_scores, drawn_threshold
from diffood.report.charts.score_histogram import histogram_picture
from diffood.report.charts.style import Picture
from diffood.report.charts.thumbnails import Thumbnails, make_thumbnails
from diffood.report.charts.tuning_front import front_picture
from diffood.report.facts import Fact, WitnessFact, facts, witness_facts
from diffood.report.gallery import Extremes, Guess, Judged, judge
from diffood.report.operating import OperatingPoint, operating_points
from diffood.runtime.bundle.calibration import Calibration
from diffood.runtime.bundle.tuning import Measured, load_measured
from diffood.runtime.decision import Rule
from diffood.runtime.detector import Detector
from diffood.runtime.method.fusion import standardise
from diffood.runtime.method.plan import Plan

UNFAIR = 0.05  # p-value, Holm's over the classes, from which a class is marked
ASIDE_SHOWN = 20  # files set aside that are named
IND = "ind"  # the key of the in-distribution set where sets are given by name


@dataclass(frozen=True)
class ClassRow:
    """False alarms among images of one predicted class; unfair: more than was asked for, beyond chance."""

    name: str
    alarms: ClassAlarms
    unfair: bool


@dataclass(frozen=True)
class Card:
    """One image of a gallery. p_value is None for an image that the threshold was fitted on.

    witnesses: by name, in standard deviations above what is usual in-distribution; empty for a plan that fits none.
    """

    id: str
    score: float
    p_value: float | None
    flagged: bool
    thumbnails: Thumbnails
    before: tuple[Guess, ...]
    after: tuple[Guess, ...]
    witnesses: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class SetReport:
    """One set of images. flagged: of count, with the 95 % interval; roc is None for in-distribution images."""

    name: str
    count: int
    flagged: FalseAlarms
    histogram: Picture
    roc: Picture | None
    most: tuple[Card, ...]
    least: tuple[Card, ...]


@dataclass(frozen=True)
class SetAside:
    """A file that could not be used."""

    set_name: str
    id: str
    reason: str


@dataclass(frozen=True)
class Report:
    """All that a report shows. evaluation is None without OOD sets, alarms and points without test images too.

    ind is the set of test images, or that of calibration images in a report about a calibration alone (`tested` False),
    which alone has `contamination`. rejection: accuracy against the share kept, where true classes are known; tuned,
    front: the plans `diffood tune` measured, where it did.
    """

    bundle: str
    tested: bool
    facts: tuple[Fact, ...]
    plan: Plan
    witnesses: tuple[WitnessFact, ...]
    fitted_on: int | None
    method: str
    alpha: float
    confidence: float | None
    threshold: float
    per_class: bool
    n: int
    guarantee: str
    evaluations: int
    ind: SetReport
    ood: tuple[SetReport, ...]
    alarms: FalseAlarms | None
    evaluation: Evaluation | None
    classes: tuple[ClassRow, ...]
    points: tuple[OperatingPoint, ...]
    set_aside: tuple[SetAside, ...]
    set_aside_count: int
    repeated: int
    contamination: tuple[Contamination, ...]
    rejection: Picture | None
    tuned: Measured | None
    front: Picture | None


def report_on_sets(
    detector: Detector,
    calibration: Calibration,
    scored: Mapping[str, ScoredFiles],
    extremes: Mapping[str, Extremes],
    evaluation: Evaluation | None,
) -> Report:
    """Collect a report on test images, `scored` and `extremes` by set, "ind" first, any number of OOD sets after it.

    evaluation: of the same scores; None where there is no OOD set.

    Raises UsageError for a set without a usable image, and for scores that are not finite.
    """
    for name, files in scored.items():
        if not len(files.scores):
            raise UsageError(f"No usable image in the {name} set; {len(files.set_aside)} files were set aside.")
    rule, names = Rule.of(calibration), detector.bundle.manifest.class_names
    sets = {name: _draw(rule, files) for name, files in scored.items()}
    ind, axis = sets[IND], _axis(rule, *sets.values())
    ood = {name: found for name, found in sets.items() if name != IND}
    ind_report = _set_report(detector, rule, "in-distribution test images", ind, None, extremes[IND], axis)
    return _report(
        detector,
        calibration,
        tested=True,
        ind=ind_report,
        ood=tuple(_set_report(detector, rule, name, found, ind, extremes[name], axis) for name, found in ood.items()),
        alarms=ind_report.flagged,
        evaluation=evaluation,
        classes=tuple(
            ClassRow(names[row.predicted], row, row.p_value <= UNFAIR)
            for row in alarms_by_class(ind.files.scores, ind.files.predicted, ind.thresholds, calibration.alpha)
        ),
        # thresholds by class would each have to be fitted again
        points=()
        if calibration.own_thresholds
        else operating_points(calibration, ind.files.scores, [found.files.scores for found in ood.values()]),
        aside=[SetAside(name, *file) for name, files in scored.items() for file in files.set_aside],
        repeated=0,
        contamination=(),
    )


def report_on_calibration(done: Calibrated, extremes: Extremes) -> Report:
    """Collect a report on the calibration images alone; `extremes` saw those the threshold was fitted on."""
    calibration, detector, rule = done.calibration, done.detector, Rule.of(done.calibration)
    drawn = _draw(rule, done.files)
    ind = _set_report(detector, rule, "calibration images", drawn, None, extremes, _axis(rule, drawn), fresh=False)
    return _report(
        detector,
        calibration,
        tested=False,
        ind=ind,
        ood=(),
        alarms=None,
        evaluation=None,
        classes=(),
        points=(),
        aside=[SetAside("calibration", *file) for file in done.set_aside],
        repeated=done.files.repeated,
        contamination=done.contamination,
    )


def _report(
    detector: Detector,
    calibration: Calibration,
    *,
    tested: bool,
    ind: SetReport,
    ood: tuple[SetReport, ...],
    alarms: FalseAlarms | None,
    evaluation: Evaluation | None,
    classes: tuple[ClassRow, ...],
    points: tuple[OperatingPoint, ...],
    aside: list[SetAside],
    repeated: int,
    contamination: tuple[Contamination, ...],
) -> Report:
    tuned = load_measured(detector.bundle)
    rejection = evaluation.rejection if evaluation else None
    return Report(
        bundle=detector.bundle.path.resolve().name,
        tested=tested,
        facts=facts(detector, calibration),
        plan=detector.plan,
        witnesses=witness_facts(calibration),
        fitted_on=calibration.fusion.n if calibration.fusion else None,
        method=calibration.method,
        alpha=calibration.alpha,
        confidence=None if calibration.delta is None else 1 - calibration.delta,
        threshold=calibration.threshold,
        per_class=bool(calibration.own_thresholds),
        n=calibration.n,
        guarantee=calibration.guarantee,
        evaluations=detector.evaluations,
        ind=ind,
        ood=ood,
        alarms=alarms,
        evaluation=evaluation,
        classes=classes,
        points=points,
        set_aside=tuple(aside[:ASIDE_SHOWN]),
        set_aside_count=len(aside),
        repeated=repeated,
        contamination=contamination,
        rejection=rejection_picture(rejection) if rejection else None,
        tuned=tuned,
        front=front_picture(tuned) if tuned else None,
    )


@dataclass(frozen=True)
class _Drawn:
    """A scored set, what each score was compared with, float64 [N], and the scores as they are drawn, float64 [N]."""

    files: ScoredFiles
    thresholds: FloatArray
    scores: FloatArray


def _draw(rule: Rule, files: ScoredFiles) -> _Drawn:
    thresholds = rule.decide(files.scores, files.predicted).thresholds
    return _Drawn(files, thresholds, drawn_scores(files.scores, thresholds, per_class=bool(rule.own)))


def _axis(rule: Rule, *sets: _Drawn) -> ScoreAxis:
    """The axis that all histograms of a page share."""
    threshold = drawn_threshold(rule.calibration.threshold, per_class=bool(rule.own))
    return ScoreAxis.of([found.scores for found in sets], threshold)


def _set_report(
    detector: Detector,
    rule: Rule,
    name: str,
    found: _Drawn,
    ind: _Drawn | None,
    extremes: Extremes,
    axis: ScoreAxis,
    *,
    fresh: bool = True,
) -> SetReport:
    """A set with its pictures; ind: the in-distribution set an OOD set is drawn against, None for that itself.

    fresh: the threshold was not fitted on these images.
    """
    scores, threshold = found.scores, axis.threshold
    flagged = false_alarms(found.files.scores, found.thresholds)
    above = "the threshold of their class" if rule.own else f"the threshold {threshold:.4g}"
    share = f"{flagged.flagged} of {scores.size} score above {above}."
    middle = f"The middle score is {float(np.median(found.files.scores)):.4g};"
    if ind is None:
        histogram = histogram_picture(axis, scores, None, f"Histogram of scores. {middle} {share}")
        roc = None
    else:
        alt = f"Histogram of scores over that of in-distribution images. {middle} {share}"
        histogram = histogram_picture(axis, ind.scores, scores, alt)
        alt = f"ROC curve: share detected against share of false alarms. At the threshold, {share}"
        roc = roc_picture(ind.scores, scores, threshold, alt)
    cards = {
        judged.image.id: _card(rule, judged, fresh=fresh)
        for judged in judge(detector, extremes.highest + extremes.lowest)
    }
    return SetReport(
        name=name,
        count=scores.size,
        flagged=flagged,
        histogram=histogram,
        roc=roc,
        most=tuple(cards[image.id] for image in extremes.highest),
        least=tuple(cards[image.id] for image in extremes.lowest),
    )


def _card(rule: Rule, judged: Judged, *, fresh: bool) -> Card:
    image, fusion = judged.image, rule.calibration.fusion
    decision = rule.decide(np.array([image.score]), np.array([image.logits.argmax()]))
    return Card(
        id=image.id,
        score=image.score,
        p_value=float(decision.p_values[0]) if fresh else None,
        flagged=bool(decision.is_ood[0]),
        thumbnails=make_thumbnails(image.original, image.denoised),
        before=judged.before,
        after=judged.after,
        witnesses=tuple(zip(fusion.names, standardise(fusion.witnesses, image.witnesses).tolist(), strict=True))
        if fusion
        else (),
    )
