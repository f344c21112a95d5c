"""Reports on a calibrated bundle: on test images, or on the calibration alone."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from diffood.calibration.calibrate import Calibrated
from diffood.calibration.evaluate import Evaluated, EvaluateRequest, evaluate_bundle
from diffood.calibration.metrics.by_class import alarms_by_class
from diffood.calibration.metrics.evaluation import Evaluation
from diffood.calibration.scored_files import IND, SetAside, describe_unusable
from diffood.calibration.seen import describe_seen
from diffood.errors import UsageError
from diffood.report.charts.alarm_band import band_picture
from diffood.report.charts.rejection_curve import rejection_picture
from diffood.report.charts.tuning_front import front_picture
from diffood.report.contents import (
    CalibrationImages,
    ClassRow,
    FittedBundle,
    Performance,
    Report,
    SetReport,
    UnusableFile,
)
from diffood.report.facts import bundle_facts, witness_facts
from diffood.report.gallery import Extremes, SetExtremes
from diffood.report.operating import OperatingPoint, operating_points
from diffood.report.page import write_report
from diffood.report.requirements import require_report
from diffood.report.sets import ComparedSet, SetReporter
from diffood.runtime.bundle.calibration import Calibration
from diffood.runtime.bundle.tuning import load_measured
from diffood.runtime.certificate import band_of
from diffood.runtime.decision import DecisionRule
from diffood.runtime.detector import Detector
from diffood.runtime.progress import ShowProgress, hide_progress

UNFAIR = 0.05  # p-value, Holm's over the classes, from which a class is marked
ASIDE_SHOWN = 20  # files set aside that are named


@dataclass(frozen=True)
class ReportRequest:
    """What `diffood report` is asked for.

    Attributes:
        tests: The bundle, its test sets and the engine; OOD sets may be none.
        output: HTML file to write.
    """

    tests: EvaluateRequest
    output: Path


@dataclass(frozen=True)
class WrittenReport:
    """What was written: the file, and by set the images scored, set aside (with reasons) and changed when read."""

    path: Path
    scored: dict[str, int]
    set_aside: dict[str, SetAside]
    conversions: dict[str, Counter[str]]


def make_report(request: ReportRequest, show_progress: ShowProgress = hide_progress) -> WrittenReport:
    """Score test images and write the page about them.

    Raises:
        CalibrationError: The bundle is not calibrated for the engine.
        UsageError: A set has no usable image, or the output is a folder.
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    require_report(request.output)
    extremes = SetExtremes()
    done = evaluate_bundle(request.tests, show_progress, extremes.see)
    write_report(report_on_sets(done, extremes), request.output)
    return WrittenReport(
        request.output,
        {name: len(files.scores) for name, files in done.files.items()},
        {name: files.set_aside for name, files in done.files.items()},
        {name: files.conversions for name, files in done.files.items()},
    )


def report_on_sets(done: Evaluated, extremes: SetExtremes) -> Report:
    """A report on test images; `extremes` saw all of them.

    Raises:
        UsageError: A set has no usable image, or scores that are not finite.
    """
    detector, calibration, evaluation = done.detector, done.calibration, done.evaluation
    for name, files in done.files.items():
        if not len(files.scores):
            raise UsageError(describe_unusable(name, files.set_aside))
    rule, names = DecisionRule.of(calibration), detector.bundle.manifest.class_names
    sets = {name: ComparedSet.of(rule, name, files, extremes.of(name)) for name, files in done.files.items()}
    ind = replace(sets.pop(IND), name="in-distribution test images")
    reporter = SetReporter(detector, rule, ind, tuple(sets.values()))
    ind_report = reporter.report(ind)
    rows = alarms_by_class(ind.files.scores, ind.files.predicted, ind.thresholds, calibration.alpha)
    points: tuple[OperatingPoint, ...] = ()
    if not calibration.own_thresholds:  # those would each have to be fitted again
        points = operating_points(calibration, ind.files.scores, [found.files.scores for found in sets.values()])
    rejection = evaluation.rejection
    performance = Performance(
        alarms=ind_report.flagged,
        ood=tuple(map(reporter.report, sets.values())),
        evaluation=evaluation if isinstance(evaluation, Evaluation) else None,
        classes=tuple(ClassRow(names[row.predicted], row, row.p_value <= UNFAIR) for row in rows),
        points=points,
        accuracy=rejection,
        rejection=rejection_picture(rejection) if rejection else None,
        not_fresh=tuple(describe_seen(evaluation.seen, evaluation.images)),
    )
    unusable = [UnusableFile(name, *file) for name, files in done.files.items() for file in files.set_aside]
    return _report(describe_fitted(detector, calibration), ind_report, unusable, performance=performance)


def report_on_calibration(done: Calibrated, extremes: Extremes) -> Report:
    """A report on the calibration images alone; `extremes` saw those the threshold was fitted on."""
    rule = DecisionRule.of(done.calibration)
    ind = ComparedSet.of(rule, "calibration images", done.files, extremes, fresh=False)
    return _report(
        describe_fitted(done.detector, done.calibration),
        SetReporter(done.detector, rule, ind).report(ind),
        [UnusableFile("calibration", *file) for file in done.set_aside],
        calibrated_on=CalibrationImages(done.files.repeated, done.contamination),
    )


def _report(
    fitted: FittedBundle,
    ind: SetReport,
    unusable: list[UnusableFile],
    *,
    performance: Performance | None = None,
    calibrated_on: CalibrationImages | None = None,
) -> Report:
    return Report(fitted, ind, performance, calibrated_on, tuple(unusable[:ASIDE_SHOWN]), len(unusable))


def describe_fitted(detector: Detector, calibration: Calibration) -> FittedBundle:
    """What a calibrated bundle holds, for the page."""
    tuned = load_measured(detector.bundle)
    band = band_of(calibration, len(detector.bundle.manifest.class_names))
    return FittedBundle(
        bundle=detector.bundle.path.resolve().name,
        facts=bundle_facts(detector, calibration),
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
        detection=calibration.detection.statement if calibration.detection else None,
        band=band_picture(np.array(calibration.scores), band, calibration.threshold, "False-alarm rates and bounds"),
        band_confidence=1 - band.delta,
        lowest_rate=float(band.bounds[0]),
        evaluations=detector.evaluations,
        tuned=tuned,
        front=front_picture(tuned) if tuned else None,
    )
