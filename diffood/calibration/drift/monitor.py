"""Follows the rows that a calibrated bundle served and says whether, since when and where they drift."""

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from diffood.calibration.checked import require_share
from diffood.calibration.drift.martingale import (
    FloatArray,
    GroupDrift,
    Wealth,
    estimate_beginning,
    initial_wealth,
    online_p_values,
    play,
    rank_groups,
    tie_breaker,
)
from diffood.errors import CalibrationError
from diffood.runtime.bundle.calibration import Calibration
from diffood.serving.rows.readers import follow_rows, read_rows
from diffood.serving.rows.row import Row


@dataclass(frozen=True)
class Observed:
    """What is kept of some rows that were bet on, each array [N] in order.

    numbers: 1-based places among all rows; scores: inf where there was none; path: log10 of the martingale.
    """

    numbers: npt.NDArray[np.int64]
    ids: tuple[str, ...]
    classes: tuple[str, ...]
    scores: FloatArray
    flagged: npt.NDArray[np.bool_]
    p_values: FloatArray
    path: FloatArray


@dataclass(frozen=True)
class Watch:
    """A watch after some rows; `observe` gives the next one. earlier: calibration and served scores, sorted."""

    calibration: Calibration
    level: float
    earlier: FloatArray
    wealth: Wealth
    blocks: tuple[Observed, ...] = ()
    rows: int = 0
    rejected: int = 0
    log10_maximum: float = 0.0

    @property
    def log10_martingale(self) -> float:
        """log10 of the martingale now; 0 before the first row."""
        return float(self.blocks[-1].path[-1]) if self.blocks else 0.0

    @property
    def log10_alarm(self) -> float:
        """Where the alarm is: log10 of 1 / level."""
        return -math.log10(self.level)

    @property
    def alarmed(self) -> bool:
        """Whether the martingale has ever reached the alarm."""
        return self.log10_maximum >= self.log10_alarm


@dataclass(frozen=True)
class Place:
    """A row: its 1-based place among all rows read, and its id."""

    row: int
    id: str


@dataclass(frozen=True)
class DriftReport:
    """What a watch found. rows: all that were read; rejected: those among them without a score, not bet on.

    alarm: where the martingale reached 1 / level; began: where the drift is estimated to have begun; classes (by
    prediction) and sources (first folder of the id): what drives it since then. None and empty without an alarm.
    numbers, path: rows bet on and log10 of the martingale after each.
    """

    rows: int
    rejected: int
    flagged: int
    level: float
    log10_martingale: float
    log10_maximum: float
    log10_alarm: float
    alarm: Place | None
    began: Place | None
    classes: tuple[GroupDrift, ...]
    sources: tuple[GroupDrift, ...]
    numbers: npt.NDArray[np.int64]
    path: FloatArray

    def as_json(self) -> dict[str, Any]:
        """The same as plain values; numbers and path are left out."""
        return {key: value for key, value in asdict(self).items() if key not in ("numbers", "path")}


def begin(calibration: Calibration, level: float) -> Watch:
    """Start a watch that raises a false alarm with probability `level` at most. UsageError unless 0 < level < 1."""
    require_share("--level", level)
    return Watch(calibration, level, np.array(calibration.scores), initial_wealth())


def observe(watch: Watch, rows: Sequence[Row]) -> Watch:
    """The watch after these rows too. Raises CalibrationError for a row that another calibration judged.

    A row that is flagged without a score, as the models gave no finite one, counts as the highest score there is.
    """
    places = [(watch.rows + place, row) for place, row in enumerate(rows, 1) if row.status != "rejected"]
    rejected = len(rows) - len(places)
    watch = replace(watch, rows=watch.rows + len(rows), rejected=watch.rejected + rejected)
    if not places:
        return watch
    bet_on = [row for _, row in places]
    _require_own(watch.calibration, places)
    scores = np.array([math.inf if row.score is None else row.score for row in bet_on])
    ties = np.array([tie_breaker(number, row.sha256) for number, row in places])
    p_values, earlier = online_p_values(watch.earlier, scores, ties)
    wealth, path = play(watch.wealth, p_values)
    block = Observed(
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
    )


def _require_own(calibration: Calibration, places: Sequence[tuple[int, Row]]) -> None:
    own = calibration.own_thresholds
    for number, row in places:
        expected = calibration.threshold
        if row.predicted_class is not None:
            expected = own.get(row.predicted_class, expected)
        if row.threshold != expected:
            of_class = f" for class {row.predicted_class}" if own else ""
            raise CalibrationError(
                f"Row {number} ({row.id!r}) was judged at threshold {row.threshold}, the bundle's calibration has "
                f"{expected}{of_class}: the row comes from another bundle or from before a recalibration. Give only "
                "rows served since, or score the files again with `diffood serve-batch`."
            )


def observe_files(watch: Watch, paths: Sequence[Path]) -> Watch:
    """The watch after all rows of these files, in the order given. Raises as `observe` and `read_rows` do."""
    for path in paths:
        for block in read_rows(path):
            watch = observe(watch, block)
    return watch


def follow_file(watch: Watch, path: Path, interval: float, tell: Callable[[Watch], None]) -> Watch:
    """The watch after a growing file, left at an alarm or Ctrl-C. `tell` hears of it whenever all new rows are read."""
    told = -1
    with contextlib.suppress(KeyboardInterrupt):
        for block in follow_rows(path, interval):
            watch = observe(watch, block)
            if watch.alarmed:
                break
            if not block and watch.rows != told:
                told = watch.rows
                tell(watch)
    return watch


def conclude(watch: Watch) -> DriftReport:
    """Say what the rows so far show."""
    seen = _joined(watch.blocks)
    alarm = began = None
    classes: tuple[GroupDrift, ...] = ()
    sources: tuple[GroupDrift, ...] = ()
    if watch.alarmed:
        last = int(np.argmax(seen.path >= watch.log10_alarm))
        first = estimate_beginning(seen.p_values[: last + 1])
        alarm, began = (Place(int(seen.numbers[index]), seen.ids[index]) for index in (last, first))
        compared = (seen.scores[first:], seen.flagged[first:], np.array(watch.calibration.scores))
        classes = rank_groups(seen.classes[first:], *compared)
        sources = rank_groups([source_of(identity) for identity in seen.ids[first:]], *compared)
    return DriftReport(
        rows=watch.rows,
        rejected=watch.rejected,
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
    )


def source_of(identity: str) -> str:
    """First folder of a row's id, "." where it has none."""
    folder, separator, _ = identity.lstrip("/").partition("/")
    return folder if separator else "."


def _joined(blocks: Sequence[Observed]) -> Observed:
    return Observed(
        numbers=np.concatenate([np.empty(0, np.int64), *(block.numbers for block in blocks)]),
        ids=tuple(identity for block in blocks for identity in block.ids),
        classes=tuple(name for block in blocks for name in block.classes),
        scores=np.concatenate([np.empty(0), *(block.scores for block in blocks)]),
        flagged=np.concatenate([np.empty(0, np.bool_), *(block.flagged for block in blocks)]),
        p_values=np.concatenate([np.empty(0), *(block.p_values for block in blocks)]),
        path=np.concatenate([np.empty(0), *(block.path for block in blocks)]),
    )
