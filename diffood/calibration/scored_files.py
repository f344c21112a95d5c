"""Scores files with a detector and keeps the numbers; fits and judges nothing."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from diffood.errors import CalibrationError
from diffood.runtime.detector import Detector
from diffood.runtime.images.conversions import kinds_of
from diffood.runtime.images.decode import DEFAULT_LIMITS, ImageLimits
from diffood.runtime.inputs.items import Item
from diffood.runtime.pipeline import score_files
from diffood.runtime.progress import Progress
from diffood.runtime.results import ImageScore

IND = "ind"  # name of the in-distribution set where sets are given by name

SetAside = tuple[tuple[str, str], ...]  # (id, reason) of files that could not be used
SeeScore = Callable[[str, ImageScore], None]  # called with the id and the result of every scored file


@dataclass(frozen=True)
class ScoredFiles:
    """Scores of the N files that could be used, in the order given.

    Attributes:
        scores: float64 [N], higher is more out-of-distribution.
        witnesses: Witness values as measured, float64 [N, W].
        predicted: Predicted classes, int64 [N].
        evaluations: UNet evaluations spent on each file, int64 [N].
        set_aside: The files that could not be used, as (id, reason).
        sha256: Of the bytes of the N files.
        ids: Of the N files.
        conversions: Number of files by kind of change while they were read, see `kinds_of`.

    """

    scores: npt.NDArray[np.float64]
    witnesses: npt.NDArray[np.float64]
    predicted: npt.NDArray[np.int64]
    evaluations: npt.NDArray[np.int64]
    set_aside: SetAside
    sha256: tuple[str, ...]
    ids: tuple[str, ...]
    conversions: Counter[str] = field(default_factory=Counter)

    @property
    def repeated(self) -> int:
        """How many of the N files have the bytes of an earlier one."""
        return len(self.sha256) - len(set(self.sha256))


def score_sources(
    detector: Detector,
    sources: Iterable[Item],
    limits: ImageLimits = DEFAULT_LIMITS,
    progress: Progress | None = None,
    see: SeeScore | None = None,
) -> ScoredFiles:
    """Score files and keep the numbers only; `see` may keep more of each."""
    scores, witnesses, predicted, evaluations, set_aside, hashes, ids = [], [], [], [], [], [], []
    conversions = Counter[str]()
    for outcome in score_files(detector, sources, limits, progress):
        if outcome.result is None:
            set_aside.append((outcome.source.id, outcome.loaded.error))
        else:
            if see:
                see(outcome.source.id, outcome.result)
            scores.append(outcome.result.checked)
            witnesses.append(outcome.result.witnesses)
            predicted.append(outcome.result.predicted)
            evaluations.append(outcome.result.evaluations)
            hashes.append(outcome.loaded.sha256)
            ids.append(outcome.source.id)
            conversions.update(kinds_of(outcome.loaded.note))
    return ScoredFiles(
        np.array(scores, np.float64),
        np.array(witnesses, np.float64).reshape(-1, len(detector.plan.witnesses)),
        np.array(predicted, np.int64),
        np.array(evaluations, np.int64),
        tuple(set_aside),
        tuple(hashes),
        tuple(ids),
        conversions,
    )


def require_finite(files: ScoredFiles, kind: str, cannot: str) -> None:
    """Raise CalibrationError, naming the first image, where models gave values that are not finite.

    Args:
        files: Of a set.
        kind: What images they are, for the message.
        cannot: What can then not be done.
    """
    broken = np.flatnonzero(~np.isfinite(files.scores))
    if broken.size:
        raise CalibrationError(
            f"The models give values that are not finite on {broken.size} of {files.scores.size} {kind} images, the "
            f"first is {files.ids[broken[0]]!r}, so {cannot}. Leave such images out, or check the bundle's precision "
            "and the models."
        )


def describe_set_aside(set_aside: Sequence[tuple[str, str]]) -> str:
    """A sentence, ended by a space, that names the first of the files that could not be used; "" if there are none."""
    if not set_aside:
        return ""
    name, reason = set_aside[0]
    return f"The first of {len(set_aside)} that cannot be used is {name!r}: {reason} "


def describe_unusable(name: str, set_aside: Sequence[tuple[str, str]]) -> str:
    """Two sentences about a set of images that has no usable one."""
    named = describe_set_aside(set_aside).rstrip()
    return f"No usable image in the {name} set; {len(set_aside)} files were set aside. {named}".rstrip()
