"""tuning.json: the images a plan was chosen on, which no threshold is fitted on, and the plans it was chosen from.

Chooses nothing.
"""

import os
from collections.abc import Collection
from typing import Annotated, Literal

from pydantic import Field, model_validator

from diffood.runtime.bundle.bundle import TUNING, Bundle, Sha256
from diffood.runtime.bundle.files import read_record, write_record
from diffood.runtime.records import Record, Share

MOST_IMAGES = 1_000_000
MOST_PLANS = 10_000
# a hash, quotes, a comma, a new line and its indent; seven short lines
MAX_TUNING_BYTES = 80 * MOST_IMAGES + 300 * MOST_PLANS

Cost = Annotated[float, Field(gt=0)]
Unit = Literal["UNet evaluations", "milliseconds"]


class MeasuredPlan(Record):
    """A plan that was measured: its cost, its mean AUROC with the 95 % interval; front: no other beats it in both."""

    cost: Cost
    auroc: Share
    low: Share
    high: Share
    front: bool
    chosen: bool


class Measured(Record):
    """What the last tuning measured; limit: the most a plan might cost; made: the OOD images were made from others."""

    unit: Unit
    limit: Cost
    made: bool
    plans: Annotated[tuple[MeasuredPlan, ...], Field(min_length=1, max_length=MOST_PLANS)]

    @model_validator(mode="after")
    def _consistent(self) -> "Measured":
        if sum(plan.chosen for plan in self.plans) != 1 or not any(plan.front for plan in self.plans):
            raise ValueError("exactly one plan is chosen, and some are on the front")
        return self


class TuningRecord(Record):
    """images: sha256 of the bytes of every in-distribution file that `diffood tune` ever looked at, ascending."""

    format: Literal[1] = 1
    images: Annotated[tuple[Sha256, ...], Field(max_length=MOST_IMAGES)] = ()
    measured: Measured | None = None


def load_tuned(bundle: Bundle) -> frozenset[str]:
    """Hashes of the images a plan of this bundle was chosen on, none where it never was. BundleError where damaged."""
    return frozenset(_load(bundle).images)


def load_measured(bundle: Bundle) -> Measured | None:
    """What the last tuning measured, None where there was none to its end. BundleError where damaged."""
    return _load(bundle).measured


def add_tuned(bundle: Bundle, hashes: Collection[str]) -> None:
    """Write the hashes into the bundle, beside those of earlier runs: whoever tuned twice saw the images of both.

    Raises BundleError as `load_tuned` does.
    """
    record = _load(bundle)
    _write(bundle, TuningRecord(images=tuple(sorted({*record.images, *hashes})), measured=record.measured))


def keep_measured(bundle: Bundle, measured: Measured) -> None:
    """Write what a tuning measured, in the place of an earlier one's. Raises BundleError as `load_tuned` does."""
    _write(bundle, TuningRecord(images=_load(bundle).images, measured=measured))


def _load(bundle: Bundle) -> TuningRecord:
    if not os.path.lexists(bundle.path / TUNING):
        return TuningRecord()
    remedy = "copy the bundle again, whole, or choose the plan anew on other images"
    return read_record(bundle.path, TUNING, TuningRecord, limit=MAX_TUNING_BYTES, remedy=remedy)


def _write(bundle: Bundle, record: TuningRecord) -> None:
    write_record(bundle.path, TUNING, record)
