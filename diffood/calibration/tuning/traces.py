"""Lists the plans that `tune` tries, grouped by trace: one pass from which several plans are computed.

The trace of a plan denoises as the plan does, with the most repeats of any plan, and measures what it can of
the witnesses. Plans with fewer repeats, earlier stages or fewer witnesses are computed from it (see `Evidence.first`).
"""

from dataclasses import dataclass
from itertools import product

from diffood.runtime.bundle.bundle import Bundle
from diffood.runtime.method.plan import DEFAULT, FAST, Plan
from diffood.runtime.method.schedule import Sampler
from diffood.runtime.method.witnesses.definition import SNAPSHOT
from diffood.runtime.method.witnesses.registry import WITNESSES, Witness, inner_vectors, measurable, need_bank

REPEATS = (1, 2, 4)  # more than four gained nothing on the zoo, at twice the cost
STAGES = ((), (0,), (1,), (0, 1))  # 0: no denoising where the classifier is certain; 1: one repeat for clear images
WITNESS_SETS: tuple[tuple[Witness, ...], ...] = (
    DEFAULT.witnesses,
    FAST.witnesses,  # denoised images are not classified: cheaper, equally good on the zoo
    ("jump",),  # the paper's score
)
STEPS = 1000  # training steps the times below are written for


@dataclass(frozen=True)
class Denoising:
    """One way to denoise, on a schedule of STEPS training steps.

    Attributes:
        start_times: As in `Plan`.
        stride: As in `Plan`.
        sampler: As in `Plan`.
    """

    start_times: tuple[int, ...]
    stride: int
    sampler: Sampler


DENOISINGS = (
    Denoising((60,), 60, "ddim"),  # one step from little noise: what the UNet sees inside counts
    Denoising((240,), 240, "ddim"),  # one step from little noise: details count
    Denoising((360,), 360, "ddim"),  # one step from the paper's largest start time, the default
    Denoising((480,), 480, "ddim"),  # one step from more noise: only the object's kind is left
    Denoising((240, 480), 480, "ddim"),  # one step each from little and from much noise, for what either misses
    Denoising((360,), 180, "ddim"),  # two steps: whether a better image is worth twice the cost
    Denoising((480,), 240, "ddim"),  # two steps from more noise, where one step blurs most
    Denoising((360,), 120, "ddim"),  # three steps, after which nothing was gained on the zoo
    Denoising((480,), 120, "ddim"),  # four steps from more noise
    Denoising((480,), 240, "pndm2"),  # a second-order sampler on few steps, which it needs least
    Denoising((360,), 120, "pndm2"),  # the same on three
)
NOTHING_TO_TUNE = "plans are compared by how they denoise"
GUIDANCES = (0.0, 2.0)  # none, at half the cost; the paper's


def trace_of(bundle: Bundle, plan: Plan) -> Plan:
    """The trace that a plan is computed from."""
    named = {name for known in (*bundle.manifest.plans.values(), plan) for name in known.witnesses}

    def measured(name: Witness) -> bool:
        """What looks inside the networks needs graphs that tell their maps: a plan of the bundle then names it."""
        return not need_bank([name]) or (name in named and (name != SNAPSHOT or plan.of_one_step))

    return plan.changed(
        {
            "repeats": max(plan.repeats, *REPEATS),
            "witnesses": tuple(filter(measured, WITNESSES)),
            "stages": (),
            "combine": DEFAULT.combine,
        }
    )


def list_plans(bundle: Bundle) -> list[Plan]:
    """Every plan to try on the bundle's training schedule; without a null class none is guided."""
    steps, guided = len(bundle.alpha_bar), bundle.require_unet(NOTHING_TO_TUNE).labels == "class+null"
    plans: dict[Plan, None] = {}  # on a short schedule two may become one
    inside = _of_inside(bundle)
    for denoising, guidance in product(DENOISINGS, GUIDANCES if guided else GUIDANCES[:1]):
        trace = DEFAULT.changed(
            {
                "start_times": sorted({_scaled(start, steps) for start in denoising.start_times}),
                "stride": _scaled(denoising.stride, steps),
                "sampler": denoising.sampler,
                "guidance": guidance,
                "stages": (),
            }
        )
        looks = [inside] if inside and (trace.of_one_step or SNAPSHOT not in inside) else []
        for repeats, witnesses, stages in product(REPEATS, (*WITNESS_SETS, *looks), STAGES):
            if all(stage < repeats for stage in stages) and (not stages or measurable(witnesses, stages[0])):
                plans[trace.changed({"repeats": repeats, "witnesses": witnesses, "stages": stages})] = None
    return list(plans)


def _of_inside(bundle: Bundle) -> tuple[Witness, ...]:
    """The witnesses of the bundle's first plan that looks inside the networks; none without one."""
    plans = bundle.manifest.plans.values()
    return next((plan.witnesses for plan in plans if plan.denoises and inner_vectors(plan.witnesses)), ())


def group_by_trace(bundle: Bundle, plans: list[Plan]) -> dict[Plan, list[Plan]]:
    """Plans by their trace, the cheapest trace first."""
    groups: dict[Plan, list[Plan]] = {}
    for plan in plans:
        members = groups.setdefault(trace_of(bundle, plan), [])
        if plan not in members:
            members.append(plan)
    return dict(sorted(groups.items(), key=lambda item: full_cost(bundle, item[0])))


def full_cost(bundle: Bundle, plan: Plan, repeats: int | None = None) -> int:
    """UNet evaluations of an image that goes through all repeats, or through this many."""
    return plan.evaluations(bundle.tables(plan), repeats)


def _scaled(time: int, steps: int) -> int:
    return min(steps - 1, max(1, round(time * steps / STEPS)))
