"""tuning.json: the images a plan was chosen on, which no threshold is fitted on, and the plans it was chosen from."""

import os
from collections.abc import Collection
from typing import Annotated, Literal

from pydantic import Field, model_validator

from diffood.runtime.bundle.bundle import TUNING, Bundle, Sha256
from diffood.runtime.bundle.files import record_bytes
from diffood.runtime.records import Record, Share

MOST_IMAGES = 1_000_000
MOST_PLANS = 10_000
# a hash, quotes, a comma, a new line and its indent; seven short lines
MAX_TUNING_BYTES = 80 * MOST_IMAGES + 300 * MOST_PLANS

Cost = Annotated[float, Field(gt=0)]
Unit = Literal["UNet evaluations", "milliseconds"]


class MeasuredPlan(Record):
    """A plan that was measured.

    Attributes:
        cost: Per image, in the unit of the tuning.
        auroc: Mean over the OOD sets.
        low: Lower end of its 95 % interval.
        high: Upper end.
        front: Whether no other plan is better in both cost and AUROC.
        chosen: Whether it became the bundle's default.
    """

    cost: Cost
    auroc: Share
    low: Share
    high: Share
    front: bool
    chosen: bool


class TuningMeasurement(Record):
    """What the last tuning measured.

    Attributes:
        unit: Of the costs.
        limit: Largest allowed cost.
        made: Whether the OOD images were made from in-distribution images.
        plans: All plans that were measured.
    """

    unit: Unit
    limit: Cost
    made: bool
    plans: Annotated[tuple[MeasuredPlan, ...], Field(min_length=1, max_length=MOST_PLANS)]

    @model_validator(mode="after")
    def _consistent(self) -> "TuningMeasurement":
        if sum(plan.chosen for plan in self.plans) != 1 or not any(plan.front for plan in self.plans):
            raise ValueError("exactly one plan is chosen, and some are on the front")
        return self


class TuningRecord(Record):
    """The content of tuning.json; images: sha256 of every in-distribution file that `diffood tune` used, ascending."""

    format: Literal[1] = 1
    images: Annotated[tuple[Sha256, ...], Field(max_length=MOST_IMAGES)] = ()
    measured: TuningMeasurement | None = None


def load_tuned(bundle: Bundle) -> frozenset[str]:
    """Hashes of the images a plan of this bundle was chosen on. Raises BundleError if the file is damaged."""
    return frozenset(_load(bundle).images)


def load_measured(bundle: Bundle) -> TuningMeasurement | None:
    """What the last complete tuning measured, None if there was none. Raises BundleError if the file is damaged."""
    return _load(bundle).measured


def add_tuned(bundle: Bundle, hashes: Collection[str]) -> None:
    """Add the hashes of a tuning to those of earlier ones: after two tunings the plan depends on the images of both.

    Raises BundleError as `load_tuned` does.
    """
    record = _load(bundle)
    _write(bundle, TuningRecord(images=tuple(sorted({*record.images, *hashes})), measured=record.measured))


def keep_measured(bundle: Bundle, measured: TuningMeasurement) -> None:
    """Write what a tuning measured, replacing an earlier one. Raises BundleError as `load_tuned` does."""
    _write(bundle, TuningRecord(images=_load(bundle).images, measured=measured))


def _load(bundle: Bundle) -> TuningRecord:
    if not os.path.lexists(bundle.path / TUNING):
        return TuningRecord()
    remedy = "copy the bundle again, whole, or run `diffood tune` again on other images"
    return bundle.read_record(TUNING, TuningRecord, MAX_TUNING_BYTES, remedy)


def _write(bundle: Bundle, record: TuningRecord) -> None:
    bundle.write_unlisted(TUNING, record_bytes(record))
