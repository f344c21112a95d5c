"""What a detector answers: the score of one image, scores of several, and verdicts on them."""

import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from diffood.errors import MissingExtraError
from diffood.runtime.decision import DecisionRule
from diffood.runtime.method.plan import Plan
from diffood.runtime.method.witnesses.definition import Evidence

NOT_FINITE = "The models gave a value that is not finite; flagged. Check the bundle's precision."
REFUSED_CLASS = -1


@dataclass(frozen=True)
class ImageScore:
    """Score of one image.

    Attributes:
        score: Higher is more out-of-distribution.
        witnesses: Raw witness values, float64 [W], in plan order.
        evidence: What they were measured on.
        predicted: Index of the largest logit.
        confidence: Largest softmax probability.
        stage: Stage at which scoring stopped, from 1.
        evaluations: UNet evaluations spent.
    """

    score: float
    witnesses: npt.NDArray[np.float64]
    evidence: Evidence
    predicted: int
    confidence: float
    stage: int
    evaluations: int

    @property
    def checked(self) -> float:
        """The score; NaN if any value it came from is not finite, which a finite score may hide."""
        return self.score if self.evidence.sound else np.nan


@dataclass(frozen=True)
class ScoredImage:
    """What became of one image; `result` is None if it was refused, and `error` says why."""

    id: str
    result: ImageScore | None
    note: str = ""
    error: str = ""


@dataclass(frozen=True)
class Scores:
    """Scores of N images, in their order. What was not measured at an early stage, or of a refused image, is NaN.

    Attributes:
        score: Higher is more out-of-distribution, float64 [N].
        witnesses: Raw witness values in plan order, float64 [N, W].
        by_start: Mean jump by start time, float64 [N, T].
        predicted: Class index, int64 [N]; -1 for a refused image.
        confidence: Largest softmax probability, float64 [N].
        evaluations: UNet evaluations spent, int64 [N].
        id: Path of each file; the number among all of anything else.
        note: What was changed to fit the model, for example a resize; "" for nothing.
        error: Why each image was refused; "" if it was not.
    """

    score: npt.NDArray[np.float64]
    witnesses: npt.NDArray[np.float64]
    by_start: npt.NDArray[np.float64]
    predicted: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]
    evaluations: npt.NDArray[np.int64]
    id: tuple[str, ...]
    note: tuple[str, ...]
    error: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.score)


@dataclass(frozen=True)
class Verdict:
    """The verdict on one image; fields as the columns of `serve-batch`.

    Attributes:
        id: Path of a file; the number among all of anything else.
        is_ood: Whether the image is flagged.
        p_value: Conformal p-value; NaN for a refused image, as the other numbers.
        score: Higher is more out-of-distribution.
        threshold: Of the predicted class, or of all images.
        predicted_class: Class index; -1 for a refused image.
        class_name: Its name; "" for a refused image.
        confidence: Largest softmax probability of the classifier.
        note: What was changed to fit the model, for example a resize.
        error: Why the image was refused, or its score is invalid; "" for a good one.
    """

    id: str
    is_ood: bool
    p_value: float
    score: float
    threshold: float
    predicted_class: int
    class_name: str
    confidence: float
    note: str
    error: str


@dataclass(frozen=True)
class Verdicts:
    """Verdicts on N images, in their order; `verdicts[i]` and iteration give one `Verdict` each.

    A refused image has is_ood True, NaN for numbers and -1 for its class: it was never shown to be in-distribution.

    Attributes:
        is_ood: Whether the image is flagged, bool [N].
        p_value: Conformal p-value, float64 [N].
        score: Higher is more out-of-distribution, float64 [N].
        predicted: Class index, int64 [N].
        threshold: Of the predicted class, or of all images, float64 [N].
        error: Why each image was refused, or its score is invalid; "" for a good one.
        id: Path of each file; the number among all of anything else.
        class_name: Name of the predicted class; "" for a refused image.
        confidence: Largest softmax probability of the classifier, float64 [N].
        note: What was changed to fit the model, for example a resize; "" for nothing.
    """

    is_ood: npt.NDArray[np.bool_]
    p_value: npt.NDArray[np.float64]
    score: npt.NDArray[np.float64]
    predicted: npt.NDArray[np.int64]
    threshold: npt.NDArray[np.float64]
    error: tuple[str, ...]
    id: tuple[str, ...]
    class_name: tuple[str, ...]
    confidence: npt.NDArray[np.float64]
    note: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.is_ood)

    def __getitem__(self, index: int) -> Verdict:
        i = operator.index(index)
        return Verdict(
            id=self.id[i],
            is_ood=bool(self.is_ood[i]),
            p_value=float(self.p_value[i]),
            score=float(self.score[i]),
            threshold=float(self.threshold[i]),
            predicted_class=int(self.predicted[i]),
            class_name=self.class_name[i],
            confidence=float(self.confidence[i]),
            note=self.note[i],
            error=self.error[i],
        )

    def __iter__(self) -> Iterator[Verdict]:
        return (self[index] for index in range(len(self)))

    def to_pandas(self) -> Any:
        """A pandas.DataFrame with a row for each image and the fields of `Verdict` as columns.

        Raises MissingExtraError where pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise MissingExtraError("pandas is not installed: pip install pandas.") from None
        columns = list(Verdict.__dataclass_fields__)
        return pd.DataFrame([asdict(verdict) for verdict in self], columns=columns)


def collect_scores(outcomes: Iterable[ScoredImage], plan: Plan) -> Scores:
    """The scores of all images; their evidence, with the denoised images, is freed one by one."""
    score, confidence, predicted, evaluations = [], [], [], []
    witnesses, by_start, texts, starts = [], [], [], len(plan.start_times)
    for outcome in outcomes:
        found = outcome.result
        texts.append((outcome.id, outcome.note, outcome.error))
        score.append(found.score if found else np.nan)
        witnesses.append(found.witnesses if found else np.full(len(plan.witnesses), np.nan))
        by_start.append(found.evidence.by_start(starts) if found else np.full(starts, np.nan))
        predicted.append(found.predicted if found else REFUSED_CLASS)
        confidence.append(found.confidence if found else np.nan)
        evaluations.append(found.evaluations if found else 0)
    ids, notes, errors = zip(*texts, strict=True) if texts else ((), (), ())
    return Scores(
        score=np.array(score, np.float64),
        witnesses=np.array(witnesses, np.float64).reshape(len(texts), len(plan.witnesses)),
        by_start=np.array(by_start, np.float64).reshape(len(texts), len(plan.start_times)),
        predicted=np.array(predicted, np.int64),
        confidence=np.array(confidence, np.float64),
        evaluations=np.array(evaluations, np.int64),
        id=ids,
        note=notes,
        error=errors,
    )


def collect_verdicts(outcomes: Iterable[ScoredImage], rule: DecisionRule, class_names: Sequence[str]) -> Verdicts:
    """The verdicts on all images, by the rule of a calibration."""
    score, confidence, predicted, texts = [], [], [], []
    for outcome in outcomes:
        found = outcome.result
        score.append(found.checked if found else np.nan)
        predicted.append(found.predicted if found else REFUSED_CLASS)
        confidence.append(found.confidence if found else np.nan)
        invalid = "" if found is None or np.isfinite(score[-1]) else NOT_FINITE
        texts.append((outcome.id, class_names[predicted[-1]] if found else "", outcome.note, outcome.error or invalid))
    ids, names, notes, errors = zip(*texts, strict=True) if texts else ((), (), (), ())
    scores, classes = np.array(score, np.float64), np.array(predicted, np.int64)
    decisions, refused = rule.decide(scores, classes), classes == REFUSED_CLASS
    return Verdicts(
        is_ood=decisions.is_ood,
        p_value=np.where(refused, np.nan, decisions.p_values),
        score=scores,
        predicted=classes,
        threshold=np.where(refused, np.nan, decisions.thresholds),
        error=errors,
        id=ids,
        class_name=names,
        confidence=np.array(confidence, np.float64),
        note=notes,
    )
