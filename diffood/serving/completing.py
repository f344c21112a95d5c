"""Fills the columns of a row that depend on the run and not on its image: `certificate`, and `selected` of a stream."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from diffood.runtime.bundle.calibration import Calibration
from diffood.runtime.method.discoveries import OnlineSelection
from diffood.serving.rows.row import CertificateState, Row


@dataclass(frozen=True)
class RowCompletion:
    """What a run adds to its rows.

    Attributes:
        certificate: Of the calibration, when the run began.
        online: Selects rows as they come; None where nothing is selected, or once all rows are there.
    """

    certificate: CertificateState = ""
    online: OnlineSelection | None = None

    def begin(self, rows: Iterable[Row | None]) -> None:
        """Take in the rows of the runs that this one resumes."""
        for row in rows if self.online else ():
            if row is not None:
                self._select(row)

    def complete(self, row: Row) -> Row:
        """The row with these columns; a file that was refused has neither."""
        if row.status == "rejected":
            return row
        return replace(row, certificate=self.certificate, selected=self._select(row))

    def _select(self, row: Row) -> bool | None:
        return None if self.online is None or row.p_value is None else self.online.select(row.p_value)


def state_of(kind: str, *, withdrawn: bool) -> CertificateState:
    """Whether a certificate of this kind promises something about false alarms, and feedback has not withdrawn it."""
    if kind == "quantile":
        return "none"
    return "withdrawn" if withdrawn else "holds"


def describe_limit(calibration: Calibration, fdr: float, scored: int, online: OnlineSelection | None) -> str:
    """A sentence where the calibration has too few images for anything to be selected; "" otherwise."""
    smallest = 1 / (calibration.n + 1)
    if online is not None:
        if online.level >= smallest:
            return ""
        return (
            f"the level of the next image is {online.level:.2g}, below the smallest p-value of {calibration.n} "
            f"calibration images, {smallest:.2g}: no later image can be selected. Calibrate on more images, or serve "
            "finished batches."
        )
    needed = math.ceil(scored * smallest / fdr)
    if needed < 2:
        return ""
    return (
        f"with {calibration.n} calibration images at least {needed} of {scored} images must have the smallest p-value, "
        f"{smallest:.2g}, before any is selected; calibrate on more images to select fewer."
    )
