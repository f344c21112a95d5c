"""Chooses the label of every image: its folder, in the classifier's order, or the classifier's prediction."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt

from diffood.calibration.metrics.labels import UNKNOWN, labels_from_folders
from diffood.errors import UsageError
from diffood.runtime.inputs.open import container_of
from diffood.runtime.printable import is_control_character
from diffood.training.request import LabelSource

Predict = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.int64]]  # indices of images -> predicted classes

CHECKED = 512  # labelled images on which folders and classifier are compared
MOST_MISPLACED = 0.1
"""Share of images that may agree better with folders in another order: what chance does to a weak classifier."""


@dataclass(frozen=True)
class Labels:
    """Labels of all images.

    Attributes:
        values: int64 [N] in 0 … K - 1, K where nothing is known; empty where the UNet takes no labels.
        names: Of the K classes, in the classifier's order; empty where the UNet takes no labels.
        source: Where they come from, for the user.
    """

    values: npt.NDArray[np.int64]
    names: tuple[str, ...]
    source: str

    @property
    def count(self) -> int:
        """Labels of the UNet, the null class among them; 0 for none."""
        return len(self.names) + 1 if self.names else 0


@dataclass(frozen=True)
class KnownClasses:
    """The classes of a classifier: how many, their names if it has any, and its predictions."""

    count: int
    names: tuple[str, ...] | None
    predict: Predict


NO_LABELS = Labels(np.empty(0, np.int64), (), "none: the UNet takes no classes, and its plans are unguided")


def choose_labels(ids: Sequence[str], wanted: LabelSource, classifier: KnownClasses | None) -> Labels:
    """The label of every image, and where it comes from.

    "auto" takes the folders' where folders are classes, else the classifier's predictions, else none.

    Raises:
        UsageError: The folders are no classes of the classifier, or in another order than its classes.
    """
    if wanted == "none":
        return NO_LABELS
    if wanted != "classifier" and (found := _from_folders(ids, classifier)):
        return found
    if wanted == "folders":
        classes = ", ".join((classifier.names or ())[:3]) if classifier else ""
        missing = f" whose names are the classifier's classes ({classes}…)" if classes else ", one per class"
        raise UsageError(f"--labels folders needs folders{missing}; {ids[0]!r} lies in none.")
    if classifier is None:
        return NO_LABELS
    values = classifier.predict(np.arange(len(ids)))
    return Labels(values, _names(classifier), "the classifier's predictions")


def folder_classes(ids: Sequence[str]) -> list[str | None]:
    """The topmost folder in which images differ, of each id; None for an image next to such folders."""
    paths = [PurePosixPath(identity).parts[:-1] for identity in ids]
    paths = _without_common(paths)
    if all(path and container_of(path[0]) for path in paths):  # of several shards
        paths = _without_common([path[1:] for path in paths])
    return [path[0] if path else None for path in paths]


def _without_common(paths: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    first, last = min(paths), max(paths)
    common = next(
        (at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(map(len, (first, last)))
    )
    return [path[common:] for path in paths]


def _from_folders(ids: Sequence[str], classifier: KnownClasses | None) -> Labels | None:
    folders = folder_classes(ids)
    found = tuple(sorted({name for name in folders if name is not None}))
    names = classifier.names if classifier and classifier.names else found
    if len(found) < 2 and not (classifier and classifier.names):
        return None
    if names is found and (
        odd := [name for name in found if name != name.strip() or any(map(is_control_character, name))]
    ):
        raise UsageError(
            f"The folder {odd[0]!r} cannot be a class: a class name has no control characters, and no space at its "
            "ends. Rename it, or add --labels none."
        )
    if classifier is not None and len(names) != classifier.count:
        return None
    values = labels_from_folders(ids, names) if names is not found else _by_name(folders, found)
    if (values == UNKNOWN).all():
        return None
    if classifier is not None:
        _require_same_order(values, names, classifier)
    unknown = int((values == UNKNOWN).sum())
    rest = f", {unknown} images without one" if unknown else ""
    order = "in the classifier's order" if classifier else "in the order of their names"
    return Labels(np.where(values == UNKNOWN, len(names), values), names, f"folders, {order}{rest}")


def _by_name(folders: list[str | None], names: tuple[str, ...]) -> npt.NDArray[np.int64]:
    index = {name: number for number, name in enumerate(names)}
    return np.array([UNKNOWN if name is None else index[name] for name in folders], np.int64)


def _require_same_order(values: npt.NDArray[np.int64], names: tuple[str, ...], classifier: KnownClasses) -> None:
    """Refuse folders that agree with the classifier's predictions much better in another order."""
    from scipy.optimize import linear_sum_assignment

    labelled = np.flatnonzero(values != UNKNOWN)
    chosen = labelled[np.unique(np.linspace(0, len(labelled) - 1, CHECKED).round().astype(int))]
    predicted, table = classifier.predict(chosen), np.zeros((len(names), len(names)))
    np.add.at(table, (values[chosen], predicted), 1)
    rows, columns = linear_sum_assignment(table, maximize=True)
    agree, best = np.trace(table) / len(chosen), table[rows, columns].sum() / len(chosen)
    if best > agree + MOST_MISPLACED:
        moved = next(row for row, column in zip(rows, columns, strict=True) if row != column and table[row].any())
        raise UsageError(
            f"The classifier predicts the class of the folder for {agree:.0%} of {len(chosen)} images, and would for "
            f"{best:.0%} with its classes in another order: images of {names[moved]!r}, class {moved}, are mostly "
            f"predicted as class {int(table[moved].argmax())}. Give --class-names FILE with the names in the "
            "classifier's order, or --labels classifier."
        )


def _names(classifier: KnownClasses) -> tuple[str, ...]:
    return classifier.names or tuple(f"class {index}" for index in range(classifier.count))
