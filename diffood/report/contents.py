"""What a report shows, as plain records; the page is a template over them."""

from dataclasses import dataclass

from diffood.calibration.metrics.by_class import ClassAlarms
from diffood.calibration.metrics.evaluation import Evaluation
from diffood.calibration.metrics.rates import FalseAlarms
from diffood.calibration.metrics.rejection import Rejection
from diffood.calibration.promises.contamination import Contamination
from diffood.report.charts.style import Picture
from diffood.report.charts.thumbnails import Thumbnails
from diffood.report.facts import Fact, WitnessFact
from diffood.report.gallery import ClassGuess
from diffood.report.operating import OperatingPoint
from diffood.runtime.bundle.tuning import TuningMeasurement
from diffood.runtime.method.plan import Plan


@dataclass(frozen=True)
class FittedBundle:
    """What was fitted, and what it promises.

    Attributes:
        bundle: Name of the bundle's folder.
        facts: Models, plan, engine, versions.
        plan: The plan that the calibration is for.
        witnesses: In plan order.
        fitted_on: Images the combination of the witnesses was fitted on; None for a plan that combines none.
        method: pac, conformal or quantile.
        alpha: False alarm rate requested.
        confidence: Of the promise; None for a method without.
        threshold: Score above which an image is flagged.
        per_class: Whether predicted classes have thresholds of their own.
        n: Images the threshold was fitted on.
        guarantee: The promise in words.
        detection: What is promised of detection; None without OOD examples.
        band: Bounds of the false-alarm rate at every threshold.
        band_confidence: That all of them hold.
        lowest_rate: The lowest rate that a threshold chosen when serving can keep.
        evaluations: UNet evaluations per image, at most.
        tuned: What `diffood tune` measured for this bundle, if it did.
        front: Its picture.
    """

    bundle: str
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
    detection: str | None
    band: Picture
    band_confidence: float
    lowest_rate: float
    evaluations: int
    tuned: TuningMeasurement | None
    front: Picture | None


@dataclass(frozen=True)
class ImageCard:
    """One image of a gallery.

    Attributes:
        id: Path relative to the input given.
        score: Higher is more suspicious.
        p_value: None for an image that the threshold was fitted on.
        flagged: Whether it is above the threshold.
        thumbnails: Original, and denoised and difference where it was denoised.
        before: Likeliest classes of the original.
        after: Likeliest classes of the denoised image; empty where there is none.
        witnesses: Name and standard deviations above the in-distribution mean; empty for a plan that fits none.
    """

    id: str
    score: float
    p_value: float | None
    flagged: bool
    thumbnails: Thumbnails
    before: tuple[ClassGuess, ...]
    after: tuple[ClassGuess, ...]
    witnesses: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class SetReport:
    """One set of images.

    Attributes:
        name: As given on the command line.
        count: Images scored.
        flagged: How many are above the threshold, with the 95 % interval.
        histogram: Of scores.
        roc: None for in-distribution images.
        most: The most suspicious images, in falling order.
        least: The least suspicious others, in rising order.
    """

    name: str
    count: int
    flagged: FalseAlarms
    histogram: Picture
    roc: Picture | None
    most: tuple[ImageCard, ...]
    least: tuple[ImageCard, ...]


@dataclass(frozen=True)
class ClassRow:
    """False alarms among images of one predicted class; unfair: more than requested, beyond chance."""

    name: str
    alarms: ClassAlarms
    unfair: bool


@dataclass(frozen=True)
class Performance:
    """How the bundle does on test images.

    Attributes:
        alarms: Of in-distribution images, with the 95 % interval.
        ood: One report for each OOD set.
        evaluation: None without OOD sets.
        classes: False alarms by predicted class.
        points: Other thresholds; empty where predicted classes have thresholds of their own.
        accuracy: Accuracy under rejection, where true classes are known.
        rejection: Its picture: accuracy against the share kept.
        not_fresh: What test images were used for before, a sentence each.
    """

    alarms: FalseAlarms
    ood: tuple[SetReport, ...]
    evaluation: Evaluation | None
    classes: tuple[ClassRow, ...]
    points: tuple[OperatingPoint, ...]
    accuracy: Rejection | None
    rejection: Picture | None
    not_fresh: tuple[str, ...]


@dataclass(frozen=True)
class CalibrationImages:
    """What there is to know of the images a threshold was fitted on.

    Attributes:
        repeated: Files with the bytes of an earlier one.
        contamination: What follows if some of the images were OOD.
    """

    repeated: int
    contamination: tuple[Contamination, ...]


@dataclass(frozen=True)
class UnusableFile:
    """A file that could not be scored."""

    set_name: str
    id: str
    reason: str


@dataclass(frozen=True)
class Report:
    """All that a page shows.

    Attributes:
        fitted: The bundle and its calibration.
        ind: In-distribution test images, or the calibration images in a report about a calibration alone.
        performance: None in a report about a calibration alone.
        calibrated_on: None in a report on test images.
        set_aside: The first files that could not be scored.
        set_aside_count: How many there are in all.
    """

    fitted: FittedBundle
    ind: SetReport
    performance: Performance | None
    calibrated_on: CalibrationImages | None
    set_aside: tuple[UnusableFile, ...]
    set_aside_count: int
