"""Checks scores and classes once, where they enter from a caller."""

import numpy as np
import numpy.typing as npt

from diffood.errors import UsageError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def checked_scores(name: str, scores: FloatArray) -> FloatArray:
    """Scores as float64 [n]. Raises UsageError, naming the array, when they are empty, not finite or not [n]."""
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 1:
        raise UsageError(f"{name} have shape {list(scores.shape)}; expected [n], one score per image.")
    if scores.size == 0:
        raise UsageError(f"{name} are empty; give at least one image.")
    broken = np.flatnonzero(~np.isfinite(scores))
    if broken.size:
        raise UsageError(
            f"{name} contain {broken.size} values that are not finite, the first is {scores[broken[0]]} at position "
            f"{broken[0]}; remove the images that cannot be scored."
        )
    return scores


def checked_pair(ind: FloatArray, ood: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Both sets of scores, each checked as by `checked_scores`."""
    return checked_scores("In-distribution scores", ind), checked_scores("Out-of-distribution scores", ood)


def checked_classes(name: str, classes: IntArray, count: int) -> IntArray:
    """Class numbers as int64 [count], where count is the number of scores they belong to.

    Raises UsageError, naming the array, when they are not integers >= 0 or not [count].
    """
    classes = np.asarray(classes)
    if classes.shape != (count,):
        raise UsageError(f"{name} have shape {list(classes.shape)}; expected [{count}], one class per score.")
    if not np.issubdtype(classes.dtype, np.integer):
        raise UsageError(f"{name} are {classes.dtype}; expected integers, the position of each class.")
    if classes.size and classes.min() < 0:
        raise UsageError(f"{name} contain the class {classes.min()}; classes are numbered from 0.")
    return classes.astype(np.int64)


def require_share(name: str, value: float) -> None:
    """Raise UsageError, naming the argument, unless 0 < value < 1 (NaN is refused too)."""
    if not 0 < value < 1:
        raise UsageError(f"{name} is {value}; it must be a share strictly between 0 and 1, for example 0.05 or 0.95.")
