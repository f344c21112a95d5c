"""tuning.json: the images a plan was chosen on, which no threshold is fitted on, and the plans it was chosen from."""

import os
from collections.abc import Collection, Iterable
from typing import Annotated, Literal

from pydantic import Field, model_validator

from diffood.runtime.bundle.bundle import TUNING, Bundle, Sha256
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

    @model_validator(mode="after")
    def _inside_its_interval(self) -> "MeasuredPlan":
        if not self.low <= self.auroc <= self.high:
            raise ValueError(f"auroc: {self.auroc} is not in its interval, {self.low} to {self.high}")
        return self


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
        chosen = [plan for plan in self.plans if plan.chosen]
        if len(chosen) != 1:
            raise ValueError(f"exactly one plan is chosen, got {len(chosen)}")
        if chosen[0].cost > self.limit:
            raise ValueError(f"the chosen plan costs {chosen[0].cost}, more than the limit {self.limit}")
        if set(self._points(plan for plan in self.plans if plan.front)) != set(self._front()):
            raise ValueError("front: it is not that of the costs and AUROCs")
        return self

    @staticmethod
    def _points(plans: Iterable[MeasuredPlan]) -> list[tuple[float, float]]:
        return [(plan.cost, -plan.auroc) for plan in plans]

    def _front(self) -> list[tuple[float, float]]:
        """Costs and negative AUROCs of the plans that no other beats, by ascending cost; one of equal ones."""
        front: list[tuple[float, float]] = []
        for point in sorted(self._points(self.plans)):
            if not front or point[1] < front[-1][1]:
                front.append(point)
        return front


class TuningRecord(Record):
    """The content of tuning.json.

    The front follows from the costs and AUROCs; these, and which plan was chosen, are a claim of whoever tuned.

    Attributes:
        format: Format of the file.
        images: sha256 of every in-distribution file that `diffood tune` used, ascending.
        measured: What the last tuning measured; None before one was complete.
    """

    format: Literal[1] = 1
    images: Annotated[tuple[Sha256, ...], Field(max_length=MOST_IMAGES)] = ()
    measured: TuningMeasurement | None = None

    @model_validator(mode="after")
    def _ascending(self) -> "TuningRecord":
        if any(b <= a for a, b in zip(self.images, self.images[1:], strict=False)):
            raise ValueError("images: the hashes must ascend without repeating")
        return self


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
    return bundle.unlisted.read_record(TUNING, TuningRecord, MAX_TUNING_BYTES, remedy)


def _write(bundle: Bundle, record: TuningRecord) -> None:
    bundle.unlisted.write_record(TUNING, record)
