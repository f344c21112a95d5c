"""What a report shows of each set of images: pictures, rates and the images at both ends."""

from dataclasses import dataclass

import numpy as np

from diffood.calibration.checked import FloatArray
from diffood.calibration.metrics.rates import false_alarms
from diffood.calibration.scored_files import ScoredFiles
from diffood.report.charts.roc_curve import roc_picture
from diffood.report.charts.score_axis import ScoreAxis, drawn_scores, drawn_threshold
from diffood.report.charts.score_histogram import histogram_picture
from diffood.report.charts.thumbnails import make_thumbnails
from diffood.report.contents import ImageCard, SetReport
from diffood.report.gallery import ClassifiedImage, Extremes, classify_again
from diffood.runtime.decision import DecisionRule
from diffood.runtime.detector import Detector
from diffood.runtime.method.fusion import standardise


@dataclass(frozen=True)
class ComparedSet:
    """A scored set with its thresholds.

    Attributes:
        name: What the page calls it.
        files: Scores.
        extremes: The most and the least suspicious images.
        thresholds: What each score was compared with, float64 [N].
        drawn: Scores as histograms show them, float64 [N].
        fresh: Whether the threshold was fitted on other images.
    """

    name: str
    files: ScoredFiles
    extremes: Extremes
    thresholds: FloatArray
    drawn: FloatArray
    fresh: bool

    @classmethod
    def of(
        cls, rule: DecisionRule, name: str, files: ScoredFiles, extremes: Extremes, *, fresh: bool = True
    ) -> "ComparedSet":
        """Compare a set with the thresholds of a calibration."""
        thresholds = rule.decide(files.scores, files.predicted).thresholds
        drawn = drawn_scores(files.scores, thresholds, per_class=bool(rule.own))
        return cls(name, files, extremes, thresholds, drawn, fresh)


class SetReporter:
    """Draws sets on one axis, OOD sets over the in-distribution set."""

    def __init__(
        self, detector: Detector, rule: DecisionRule, ind: ComparedSet, ood: tuple[ComparedSet, ...] = ()
    ) -> None:
        threshold = drawn_threshold(rule.calibration.threshold, per_class=bool(rule.own))
        self._detector, self._rule, self._ind = detector, rule, ind
        self._axis = ScoreAxis.of([found.drawn for found in (ind, *ood)], threshold)

    def report(self, found: ComparedSet) -> SetReport:
        """A set with its pictures; the in-distribution set has no ROC curve."""
        files, extremes, threshold = found.files, found.extremes, self._axis.threshold
        flagged = false_alarms(files.scores, found.thresholds)
        above = "the threshold of their class" if self._rule.own else f"the threshold {threshold:.4g}"
        share = f"{flagged.flagged} of {files.scores.size} score above {above}."
        median = f"The median score is {float(np.median(files.scores)):.4g};"
        if found is self._ind:
            histogram = histogram_picture(self._axis, found.drawn, None, f"Histogram of scores. {median} {share}")
            roc = None
        else:
            alt = f"Histogram of scores over that of in-distribution images. {median} {share}"
            histogram = histogram_picture(self._axis, self._ind.drawn, found.drawn, alt)
            alt = f"ROC curve: share detected against share of false alarms. At the threshold, {share}"
            roc = roc_picture(self._ind.drawn, found.drawn, threshold, alt)
        cards = {
            classified.image.id: self._card(classified, fresh=found.fresh)
            for classified in classify_again(self._detector, extremes.highest + extremes.lowest)
        }
        return SetReport(
            name=found.name,
            count=files.scores.size,
            flagged=flagged,
            histogram=histogram,
            roc=roc,
            most=tuple(cards[image.id] for image in extremes.highest),
            least=tuple(cards[image.id] for image in extremes.lowest),
        )

    def _card(self, classified: ClassifiedImage, *, fresh: bool) -> ImageCard:
        image, fusion = classified.image, self._rule.calibration.fusion
        decision = self._rule.decide(np.array([image.score]), np.array([image.logits.argmax()]))
        deviations = standardise(fusion.witnesses, image.witnesses).tolist() if fusion else ()
        return ImageCard(
            id=image.id,
            score=image.score,
            p_value=float(decision.p_values[0]) if fresh else None,
            flagged=bool(decision.is_ood[0]),
            thumbnails=make_thumbnails(image.original, image.denoised),
            before=classified.before,
            after=classified.after,
            witnesses=tuple(zip(fusion.names, deviations, strict=True)) if fusion else (),
        )
