"""Tunes a bundle: gathers images, measures what the limit allows, writes the plan taken. `tuning` chooses it."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from diffood.calibration.tuning.choosing import (
    TUNED,
    Candidate,
    Choice,
    Limit,
    choose,
    evaluations_of,
    measure_candidates,
)
from diffood.calibration.tuning.images import IND, TuningImages, gather_images
from diffood.calibration.tuning.timing import ALONE, MOST_TIMED, Engine, LatencyModel, Speed, list_engines, time_plan
from diffood.calibration.tuning.traces import full_cost, group_by_trace, list_plans, trace_of
from diffood.errors import UsageError
from diffood.runtime.bundle.bundle import Bundle, add_default_plan
from diffood.runtime.bundle.fusion import Fusion
from diffood.runtime.bundle.tuning import Measured, MeasuredPlan, add_tuned, keep_measured
from diffood.runtime.detector import DEFAULT_BATCH, Detector
from diffood.runtime.inputs.items import Item
from diffood.runtime.method.plan import Plan

COMPARED = ("default", "plain")  # shown beside the front, whatever they cost

ShowProgress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True)
class Tuned:
    """What a run found. compared: plans of the bundle before it, by name; those with knn are left out.

    latency_engine: what milliseconds were measured on, None for a limit in evaluations. skipped: plans whose cheapest
    relative is above the limit, and which were not measured. interrupted: before all was measured; nothing is written
    then.
    """

    images: TuningImages
    limit: Limit
    candidates: tuple[Candidate, ...]
    compared: dict[str, Candidate]
    choice: Choice
    latency_engine: Engine | None
    skipped: int
    interrupted: bool

    def measured(self) -> Measured:
        """Every plan's cost and detection, as the bundle keeps them."""
        front = {found.plan for found in self.choice.front}
        return Measured(
            unit="UNet evaluations" if self.limit.kind == "evaluations" else "milliseconds",
            limit=self.limit.most,
            made=self.images.made,
            plans=tuple(
                MeasuredPlan(
                    cost=found.cost,
                    auroc=found.mean.value,
                    low=found.mean.low,
                    high=found.mean.high,
                    front=found.plan in front,
                    chosen=found.plan == self.choice.chosen.plan,
                )
                for found in self.candidates
            ),
        )

    def as_json(self) -> dict[str, Any]:
        """Everything as plain values, the scores apart."""
        choice = self.choice
        return {
            "limit": asdict(self.limit),
            "latency_engine": asdict(self.latency_engine) if self.latency_engine else None,
            "images": {name: group.count for name, group in self.images.groups.items()},
            "made": self.images.made,
            "set_aside": [list(entry) for entry in self.images.set_aside],
            "interrupted": self.interrupted,
            "skipped_plans": self.skipped,
            "chosen": choice.chosen.as_json(),
            "best_within_limit": choice.best.as_json(),
            "best_measured": choice.anywhere.as_json(),
            "chosen_below_best_within_limit": asdict(choice.below_best),
            "chosen_below_best_measured": asdict(choice.below_anywhere),
            "compared": {name: found.as_json() for name, found in self.compared.items()},
            "front": [found.as_json() for found in choice.front],
            "candidates": [found.as_json() for found in self.candidates],
        }


def tune_bundle(
    bundle: Bundle,
    ind: Sequence[Item],
    ood: Mapping[str, Sequence[Item]],
    limit: Limit,
    most_images: int,
    *,
    engine: Engine,
    latency_engine: Engine,
    show_progress: ShowProgress,
    batch: int = DEFAULT_BATCH,
    threads: int = 0,
) -> Tuned:
    """Measure plans on images, choose one within the limit, and make it the bundle's default plan.

    engine: what plans are measured on; latency_engine: what milliseconds are. Which images are looked at is noted in
    the bundle before the first is. Raises CalibrationError for too few images, UsageError where nothing is within the
    limit.
    """
    images = gather_images(ind, ood, bundle.manifest.image, most_images)
    latency, cost_of = None, lambda plan, shares: evaluations_of(bundle, plan, shares)
    if limit.kind == "milliseconds":
        latency = LatencyModel(bundle, latency_engine, list(islice(images.groups[IND].read(), ALONE)), threads)
        cost_of = latency.cost
    compared = _compared(bundle)
    groups = group_by_trace(bundle, [*compared.values(), *list_plans(bundle)])
    cheapest = {trace: _cheapest(plans, cost_of) for trace, plans in groups.items()}
    if (least := min(cheapest.values())) > limit.most:
        raise UsageError(f"No plan costs {limit.describe()}; the cheapest there is costs {least:.4g}. Allow that much.")
    shown = {trace_of(plan) for plan in compared.values()}
    kept = {trace: plans for trace, plans in groups.items() if trace in shown or cheapest[trace] <= limit.most}
    add_tuned(bundle, images.looked_at)

    def open_trace(trace: Plan) -> Detector:
        return Detector.load(
            bundle, trace, backend=engine.backend, precision=engine.precision, batch=batch, threads=threads
        )

    with show_progress("tuning", images.count * sum(full_cost(bundle, trace) for trace in kept)) as advance:
        candidates, interrupted = measure_candidates(bundle, kept, images, open_trace, cost_of, advance)
    choice = choose(candidates, limit)
    by_plan = {found.plan: found for found in candidates}
    tuned = Tuned(
        images=images,
        limit=limit,
        candidates=tuple(candidates),
        compared={name: by_plan[plan] for name, plan in compared.items() if plan in by_plan},
        choice=choice,
        latency_engine=latency_engine if latency else None,
        skipped=sum(len(plans) for trace, plans in groups.items() if trace not in kept),
        interrupted=interrupted,
    )
    if not interrupted:
        keep_measured(bundle, tuned.measured())
        add_default_plan(bundle, TUNED, choice.chosen.plan)
    return tuned


def time_chosen(bundle: Bundle, tuned: Tuned, threads: int = 0) -> list[Speed]:
    """The chosen plan's speed on every precision and backend there is here, on real images."""
    images = list(islice(tuned.images.groups[IND].read(), MOST_TIMED))
    chosen = tuned.choice.chosen
    fusion = Fusion(chosen.record) if chosen.record else None
    return [time_plan(bundle, chosen.plan, fusion, engine, images, threads) for engine in list_engines(bundle, 1)]


def _compared(bundle: Bundle) -> dict[str, Plan]:
    """The bundle's present default plan and those of COMPARED, by name."""
    plans, names = bundle.manifest.plans, (bundle.manifest.default_plan, *COMPARED)
    return {name: plans[name] for name in names if name in plans and "knn" not in plans[name].witnesses}


def _cheapest(plans: Sequence[Plan], cost_of: Callable[[Plan, Mapping[int, float]], float]) -> float:
    """Of one trace's plans, where every image ends after one repeat, as with stages it may."""
    return min(cost_of(plan, {1: 1.0}) for plan in plans)
