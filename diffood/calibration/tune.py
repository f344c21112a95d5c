"""Tunes a bundle: measures the plans that the cost limit allows, chooses one and makes it the default plan."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from diffood.calibration.request import EngineRequest, choose_engine, open_detector
from diffood.calibration.scored_files import IND
from diffood.calibration.seen import TRAINED, load_seen
from diffood.calibration.tuning.below_chance import BelowChance, find_below_chance
from diffood.calibration.tuning.candidates import CostOf, PlanCandidate, evaluations_of, measure_candidates
from diffood.calibration.tuning.choice import TUNED, CostLimit, PlanChoice, choose
from diffood.calibration.tuning.images import TuningImages, gather_images
from diffood.calibration.tuning.timing import (
    ALONE,
    MOST_TIMED,
    EngineOption,
    LatencyModel,
    Speed,
    fastest_gated,
    list_engines,
    time_plan,
)
from diffood.calibration.tuning.traces import NOTHING_TO_TUNE, full_cost, group_by_trace, list_plans, trace_of
from diffood.errors import UsageError
from diffood.runtime.assembly.files import write_detectors
from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.bundle.tuning import MeasuredPlan, TuningMeasurement, add_tuned, keep_measured
from diffood.runtime.bundle.writing import add_default_plan
from diffood.runtime.inputs.open import list_inputs
from diffood.runtime.inputs.reading import DEFAULT_RULES, InputRules
from diffood.runtime.method.plan import Plan
from diffood.runtime.method.witnesses.registry import classify_denoised
from diffood.runtime.progress import Progress, ShowProgress, hide_progress
from diffood.runtime.writable import require_writable

COMPARED = ("default", "plain")  # plans shown with the front, whatever they cost


@dataclass(frozen=True)
class TuneRequest:
    """What `diffood tune` is asked for.

    Attributes:
        bundle: The bundle's folder.
        ind: Inputs that name in-distribution images neither model was trained on.
        limit: The most an image may cost on average.
        ood: Inputs of each OOD set, by its name; none: OOD images are made from the in-distribution ones.
        images: The most in-distribution images to use; the others are left for `calibrate`.
        engine: What plans are measured on.
        rules: Columns of tables, and which URLs are opened.

    """

    bundle: Path
    ind: tuple[str, ...]
    limit: CostLimit
    ood: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    images: int = 400  # half measure: 200 tell a mean AUROC of 98 to about a point, and differences to a few tenths
    engine: EngineRequest = field(default_factory=EngineRequest)
    rules: InputRules = DEFAULT_RULES


@dataclass(frozen=True)
class Tuned:
    """What a tuning found.

    Attributes:
        bundle: As it was opened, before the tuning changed it.
        listed: In-distribution files that were named.
        trained: How many of those used the UNet was trained on, where that is known.
        images: Those used, with the OOD sets.
        limit: The most an image may cost on average.
        candidates: Every plan that was measured.
        compared: Plans the bundle had before, by name.
        choice: The plan chosen.
        below_chance: Where the paper's score alone is below chance on these images; plans with it there are left out of
            the choice, unless no other is within the limit.
        latency_engine: What milliseconds were measured on, None for a limit in evaluations.
        skipped: Plans not measured, as no plan of their trace can be within the limit.
        interrupted: Whether the tuning ended before all was measured; then no plan was written.
        speeds: Of the chosen plan on every engine of this machine; none where interrupted.

    """

    bundle: Bundle
    listed: int
    trained: int
    images: TuningImages
    limit: CostLimit
    candidates: tuple[PlanCandidate, ...]
    compared: dict[str, PlanCandidate]
    choice: PlanChoice
    below_chance: BelowChance
    latency_engine: EngineOption | None
    skipped: int
    interrupted: bool
    speeds: tuple[Speed, ...] = ()

    def measured(self) -> TuningMeasurement:
        """Cost and detection of every plan, as the bundle stores them."""
        front = {found.plan for found in self.choice.front}
        return TuningMeasurement(
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
        """Plain values for JSON, without the scores."""
        choice = self.choice
        return {
            "limit": asdict(self.limit),
            "latency_engine": asdict(self.latency_engine) if self.latency_engine else None,
            "images": {name: group.count for name, group in self.images.groups.items()},
            "made": self.images.made,
            "trained": self.trained,
            "set_aside": [list(entry) for entry in self.images.set_aside],
            "conversions": self.images.conversions,
            "interrupted": self.interrupted,
            "skipped_plans": self.skipped,
            "below_chance": self.below_chance.as_json(),
            "chosen": choice.chosen.as_json(),
            "best_within_limit": choice.best.as_json(),
            "best_measured": choice.anywhere.as_json(),
            "chosen_below_best_within_limit": asdict(choice.below_best),
            "chosen_below_best_measured": asdict(choice.below_anywhere),
            "compared": {name: found.as_json() for name, found in self.compared.items()},
            "front": [found.as_json() for found in choice.front],
            "candidates": [found.as_json() for found in self.candidates],
            "speeds": [speed.as_json() for speed in self.speeds],
        }


def tune_bundle(request: TuneRequest, show_progress: ShowProgress = hide_progress) -> Tuned:
    """Measure plans on images, choose one within the limit, and make it the bundle's default plan.

    The images used are recorded in the bundle before the first is scored. Milliseconds are measured on the fastest
    engine that passed `diffood verify`. Raises CalibrationError for too few images, UsageError for unusable values and
    where nothing is within the limit.
    """
    if request.images < 1:
        raise UsageError(f"--images {request.images} leaves nothing to measure on; give some hundreds.")
    bundle, limit, engine = open_bundle(request.bundle), request.limit, request.engine
    bundle.require_unet(NOTHING_TO_TUNE)
    compared = _compared(bundle)
    groups = group_by_trace(bundle, [*compared.values(), *list_plans(bundle)])
    trace = next(iter(groups))
    choose_engine(bundle, trace, engine)  # all refused before images are read
    require_writable(bundle.path, "The bundle", folder=True)
    sources = list_inputs(request.ind, request.rules)
    ood = {name: list_inputs(inputs, request.rules) for name, inputs in request.ood.items()}
    images = gather_images(sources, ood, bundle.manifest.image, request.images)
    latency_engine = fastest_gated(bundle, trace) if limit.kind == "milliseconds" else None
    cost_of = _cost_function(bundle, latency_engine, images, engine.threads)
    with (show_progress if latency_engine else hide_progress)("timing ways to denoise", len(groups)) as advance:
        kept = _within(groups, cost_of, limit, {trace_of(bundle, plan) for plan in compared.values()}, advance)
    add_tuned(bundle, images.used)
    open_trace = partial(open_detector, bundle, engine=engine)
    with show_progress("tuning", images.count * sum(full_cost(bundle, trace) for trace in kept)) as advance:
        candidates, interrupted = measure_candidates(bundle, kept, images, open_trace, cost_of, advance)
    below_chance = find_below_chance(candidates)
    choice = _choose(candidates, below_chance, limit)
    by_plan = {found.plan: found for found in candidates}
    tuned = Tuned(
        bundle=bundle,
        listed=len(sources),
        trained=load_seen(bundle).counts(images.used).get(TRAINED, 0),
        images=images,
        limit=limit,
        candidates=tuple(candidates),
        compared={name: by_plan[plan] for name, plan in compared.items() if plan in by_plan},
        choice=choice,
        below_chance=below_chance,
        latency_engine=latency_engine,
        skipped=sum(len(plans) for trace, plans in groups.items() if trace not in kept),
        interrupted=interrupted,
    )
    if interrupted:
        return tuned
    keep_measured(bundle, tuned.measured())
    write_detectors(add_default_plan(bundle, TUNED, choice.chosen.plan))
    return replace(tuned, speeds=_time_chosen(bundle, choice.chosen, images, engine.threads))


def _choose(candidates: Sequence[PlanCandidate], below_chance: BelowChance, limit: CostLimit) -> PlanChoice:
    """As `choose`, of the plans that are not left out, if one of them is within the limit."""
    others = [found for found in candidates if found.plan not in below_chance.left_out]
    return choose(others if any(found.cost <= limit.most for found in others) else candidates, limit)


def _cost_function(bundle: Bundle, latency_engine: EngineOption | None, images: TuningImages, threads: int) -> CostOf:
    """Of a plan in milliseconds on an engine, or in UNet evaluations."""
    if latency_engine is None:
        return lambda plan, shares: evaluations_of(bundle, plan, shares)
    return LatencyModel(bundle, latency_engine, list(islice(images.groups[IND].read(), ALONE)), threads).cost


def _within(
    groups: Mapping[Plan, Sequence[Plan]],
    cost_of: CostOf,
    limit: CostLimit,
    shown: Collection[Plan],
    progress: Progress,
) -> dict[Plan, Sequence[Plan]]:
    """The traces with a plan that may cost no more than the limit, and those in `shown`.

    A plan may cost as little as one repeat, as it may where images end in stages, and least where denoised images are
    not classified. Raises UsageError where no plan is within the limit.
    """
    cheapest = {}
    for trace, plans in groups.items():
        cheap = min(plans, key=lambda plan: classify_denoised(plan.witnesses))
        cheapest[trace] = cost_of(cheap.changed({"repeats": 1}), {1: 1.0})
        progress(1)
    if (least := min(cheapest.values())) > limit.most:
        raise UsageError(f"No plan costs {limit.describe()}; the cheapest there is costs {least:.4g}. Allow that much.")
    return {trace: plans for trace, plans in groups.items() if trace in shown or cheapest[trace] <= limit.most}


def _time_chosen(bundle: Bundle, chosen: PlanCandidate, images: TuningImages, threads: int) -> tuple[Speed, ...]:
    """The chosen plan's speed on every precision and backend there is here, on real images."""
    timed = list(islice(images.groups[IND].read(), MOST_TIMED))
    return tuple(
        time_plan(bundle, chosen.plan, chosen.fusion, engine, timed, threads)
        for engine in list_engines(bundle, chosen.plan)
    )


def _compared(bundle: Bundle) -> dict[str, Plan]:
    """The current default plan of the bundle and those of COMPARED, by name."""
    plans, names = bundle.manifest.plans, (bundle.manifest.default_plan, *COMPARED)
    return {name: plans[name] for name in names if name in plans}
