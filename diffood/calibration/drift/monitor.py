"""Monitors the rows that a calibrated bundle served: whether, since when and where they drift."""

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from diffood.calibration.checked import FloatArray, require_share
from diffood.calibration.drift.martingale import (
    GroupDrift,
    Wealth,
    estimate_start,
    initial_wealth,
    online_p_values,
    play,
    rank_groups,
    tie_breaker,
)
from diffood.errors import CalibrationError
from diffood.runtime.bundle.calibration import Calibration
from diffood.runtime.decision import DecisionRule
from diffood.serving.rows.grouping import FolderOrder
from diffood.serving.rows.readers import follow_rows, read_rows
from diffood.serving.rows.row import Row


@dataclass(frozen=True)
class ObservedRows:
    """What is kept of N rows that were bet on, in order.

    Attributes:
        numbers: 1-based positions among all rows, int64 [N].
        ids: Of the rows.
        classes: Names of the predicted classes.
        scores: float64 [N], inf where a row has none.
        flagged: bool [N].
        p_values: Online conformal p-values, float64 [N].
        path: log10 of the martingale after each row, float64 [N].
    """

    numbers: npt.NDArray[np.int64]
    ids: tuple[str, ...]
    classes: tuple[str, ...]
    scores: FloatArray
    flagged: npt.NDArray[np.bool_]
    p_values: FloatArray
    path: FloatArray


@dataclass(frozen=True)
class DriftWatch:
    """The state of a watch after some rows; `observe` returns the next state.

    Attributes:
        calibration: What judged the rows.
        level: Largest probability of a false alarm.
        earlier: Calibration scores and served scores so far, sorted, float64.
        wealth: Of the bets after the last row.
        blocks: All rows that were bet on.
        rows: Number of all rows.
        rejected: Number of rows without a score, which are not bet on.
        log10_maximum: Highest log10 of the martingale so far.
        calibrated: sha256 of the images that the bundle was calibrated on.
        seen: Number of rows of such images, which are no new draws.
    """

    calibration: Calibration
    level: float
    earlier: FloatArray
    wealth: Wealth
    blocks: tuple[ObservedRows, ...] = ()
    rows: int = 0
    rejected: int = 0
    log10_maximum: float = 0.0
    calibrated: frozenset[str] = frozenset()
    seen: int = 0

    @property
    def log10_martingale(self) -> float:
        """log10 of the martingale now; 0 before the first row."""
        return float(self.blocks[-1].path[-1]) if self.blocks else 0.0

    @property
    def log10_alarm(self) -> float:
        """The log10 of 1 / level, at which the alarm is raised."""
        return -math.log10(self.level)

    @property
    def alarmed(self) -> bool:
        """Whether the martingale has ever reached 1 / level."""
        return self.log10_maximum >= self.log10_alarm


@dataclass(frozen=True)
class RowPlace:
    """A row: its 1-based position among all rows read, and its id."""

    row: int
    id: str


@dataclass(frozen=True)
class DriftReport:
    """The result of a watch.

    Attributes:
        rows: Number of rows read.
        rejected: Number of rows without a score, which were not bet on.
        seen: Number of rows of images that the bundle was calibrated on.
        flagged: Number of rows flagged.
        level: Largest probability of a false alarm.
        log10_martingale: After the last row.
        log10_maximum: Highest so far.
        log10_alarm: The log10 of 1 / level.
        alarm: The row at which the martingale first reached 1 / level; None without an alarm.
        began: The row at which the drift is estimated to have started; None without an alarm.
        classes: Drift of each predicted class since then, the largest first; empty without an alarm.
        sources: Drift of each source (first folder of the id) since then, the largest first; empty without an alarm.
        numbers: Positions of the rows bet on, int64 [N].
        path: log10 of the martingale after each of these rows, float64 [N].
        sorted_by_folder: Whether the rows bet on come folder by folder.
        withdrawn: Why feedback has withdrawn the certificate; "" where it has not.
    """

    rows: int
    rejected: int
    seen: int
    flagged: int
    level: float
    log10_martingale: float
    log10_maximum: float
    log10_alarm: float
    alarm: RowPlace | None
    began: RowPlace | None
    classes: tuple[GroupDrift, ...]
    sources: tuple[GroupDrift, ...]
    numbers: npt.NDArray[np.int64]
    path: FloatArray
    sorted_by_folder: bool
    withdrawn: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain values for JSON, without numbers and path."""
        return {key: value for key, value in asdict(self).items() if key not in ("numbers", "path")}


def begin(calibration: Calibration, level: float) -> DriftWatch:
    """Start a watch that raises a false alarm with a probability of at most `level`, which must lie in (0, 1)."""
    require_share("--level", level)
    known = frozenset(calibration.images or ())
    return DriftWatch(calibration, level, np.array(calibration.scores), initial_wealth(), calibrated=known)


def observe(watch: DriftWatch, rows: Sequence[Row]) -> DriftWatch:
    """The watch after these rows too. Raises CalibrationError for a row that another calibration judged.

    A row that is flagged without a score, since the models gave no finite one, counts as the highest possible score.
    """
    places = [(watch.rows + place, row) for place, row in enumerate(rows, 1) if row.status != "rejected"]
    rejected = len(rows) - len(places)
    watch = replace(watch, rows=watch.rows + len(rows), rejected=watch.rejected + rejected)
    if not places:
        return watch
    bet_on = [row for _, row in places]
    require_own(watch.calibration, places)
    scores = np.array([math.inf if row.score is None else row.score for row in bet_on])
    ties = np.array([tie_breaker(number, row.sha256) for number, row in places])
    p_values, earlier = online_p_values(watch.earlier, scores, ties)
    wealth, path = play(watch.wealth, p_values)
    block = ObservedRows(
        numbers=np.array([number for number, _ in places]),
        ids=tuple(row.id for row in bet_on),
        classes=tuple(row.class_name or "unknown" for row in bet_on),
        scores=scores,
        flagged=np.array([bool(row.is_ood) for row in bet_on]),
        p_values=p_values,
        path=path,
    )
    return replace(
        watch,
        earlier=earlier,
        wealth=wealth,
        blocks=(*watch.blocks, block),
        log10_maximum=max(watch.log10_maximum, float(path.max())),
        seen=watch.seen + sum(row.sha256 in watch.calibrated for row in bet_on),
    )


def require_own(calibration: Calibration, places: Sequence[tuple[int, Row]]) -> None:
    """Raise CalibrationError, with its number, for a row that another calibration judged.

    Rows that were served at a chosen threshold are told by their p-values.
    """
    scores = np.array([math.nan if row.score is None else row.score for _, row in places])
    predicted = np.array([-1 if row.predicted_class is None else row.predicted_class for _, row in places])
    expected = DecisionRule.of(calibration).decide(scores, predicted)
    values = zip(places, expected.thresholds.tolist(), expected.p_values.tolist(), strict=True)
    for (number, row), threshold, p_value in values:
        if row.threshold != threshold and row.p_value != p_value:
            of_class = f" for class {row.predicted_class}" if calibration.own_thresholds else ""
            raise CalibrationError(
                f"Row {number} ({row.id!r}) was judged at threshold {row.threshold}, the bundle's calibration has "
                f"{threshold}{of_class}: the row comes from another bundle or from before a recalibration. Give only "
                "rows served since, or score the files again with `diffood serve-batch`."
            )


def observe_files(watch: DriftWatch, paths: Sequence[Path]) -> DriftWatch:
    """The watch after all rows of these files, in the order given. Raises as `observe` and `read_rows` do."""
    for path in paths:
        for block in read_rows(path):
            watch = observe(watch, block)
    return watch


def follow_file(watch: DriftWatch, path: Path, interval: float, report: Callable[[DriftWatch], None]) -> DriftWatch:
    """Follow a growing file until an alarm or Ctrl-C. `report` is called whenever all new rows are read."""
    reported = -1
    with contextlib.suppress(KeyboardInterrupt):
        for block in follow_rows(path, interval):
            watch = observe(watch, block)
            if watch.alarmed:
                break
            if not block and watch.rows != reported:
                reported = watch.rows
                report(watch)
    return watch


def conclude(watch: DriftWatch) -> DriftReport:
    """The result of the rows so far."""
    seen = _joined(watch.blocks)
    alarm = began = None
    order = FolderOrder()
    for identity in seen.ids:
        order.add(identity)
    classes: tuple[GroupDrift, ...] = ()
    sources: tuple[GroupDrift, ...] = ()
    if watch.alarmed:
        last = int(np.argmax(seen.path >= watch.log10_alarm))
        first = estimate_start(seen.p_values[: last + 1])
        alarm, began = (RowPlace(int(seen.numbers[index]), seen.ids[index]) for index in (last, first))
        compared = (seen.scores[first:], seen.flagged[first:], np.array(watch.calibration.scores))
        classes = rank_groups(seen.classes[first:], *compared)
        sources = rank_groups([source_of(identity) for identity in seen.ids[first:]], *compared)
    return DriftReport(
        rows=watch.rows,
        rejected=watch.rejected,
        seen=watch.seen,
        flagged=int(seen.flagged.sum()),
        level=watch.level,
        log10_martingale=watch.log10_martingale,
        log10_maximum=watch.log10_maximum,
        log10_alarm=watch.log10_alarm,
        alarm=alarm,
        began=began,
        classes=classes,
        sources=sources,
        numbers=seen.numbers,
        path=seen.path,
        sorted_by_folder=order.grouped,
    )


def source_of(identity: str) -> str:
    """First folder of a row's id, "." where it has none."""
    folder, separator, _ = identity.lstrip("/").partition("/")
    return folder if separator else "."


def _joined(blocks: Sequence[ObservedRows]) -> ObservedRows:
    return ObservedRows(
        numbers=np.concatenate([np.empty(0, np.int64), *(block.numbers for block in blocks)]),
        ids=tuple(identity for block in blocks for identity in block.ids),
        classes=tuple(name for block in blocks for name in block.classes),
        scores=np.concatenate([np.empty(0), *(block.scores for block in blocks)]),
        flagged=np.concatenate([np.empty(0, np.bool_), *(block.flagged for block in blocks)]),
        p_values=np.concatenate([np.empty(0), *(block.p_values for block in blocks)]),
        path=np.concatenate([np.empty(0), *(block.path for block in blocks)]),
    )
