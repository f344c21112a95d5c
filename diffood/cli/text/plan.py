"""A plan, and how its witnesses are combined, in lines. Prints nothing itself."""

from diffood.calibration.metrics.formatting import counted
from diffood.runtime.bundle.fusion import FusionRecord
from diffood.runtime.method.plan import Plan


def describe_plan(plan: Plan, evaluations: int) -> str:
    """One line that says what a plan does and costs."""
    fused = f" by {plan.combine}" if plan.fused else ""
    if not plan.denoises:
        return f"the classifier alone, {' + '.join(plan.witnesses)}{fused}: no UNet evaluation"
    starts = ", ".join(map(str, plan.start_times))
    stages = " or ".join(map(str, plan.stages))
    return (
        f"{plan.schedule} {plan.sampler}, start {starts}, stride {plan.stride}, repeats {plan.repeats}, "
        f"guidance {plan.guidance:g}, {plan.space} {plan.norm}, {' + '.join(plan.witnesses)}"
        f"{fused}: {counted(evaluations, 'UNet evaluation')} per image"
        f"{f' that is still unclear after repeat {stages}' if plan.stages else ''}"
    )


def describe_fusion(fusion: FusionRecord) -> list[str]:
    """Lines that say what is combined, how, the usual value of each witness, and where stages end."""
    usual = ", ".join(f"{found.name} {found.center:.3g} ± {found.scale:.2g}" for found in fusion.witnesses)
    lines = [f"fused       {fusion.combine} of {usual} (fitted on {fusion.n} other images)"]
    for rule in fusion.stages:
        sides = [f"at most {rule.low:.3g}"] if rule.low is not None else []
        sides += [f"above {rule.high:.3g}"] if rule.high is not None else []
        lines.append(
            f"stage       after {counted(rule.repeats, 'repeat')} an image ends if its score is {' or '.join(sides)}"
        )
    return lines
