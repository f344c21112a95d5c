"""Cost against detection of the plans a tuning measured, drawn into a panel: for its own picture and for reports."""

from matplotlib.axes import Axes

from diffood.runtime.bundle.tuning import Measured


def plot_front(panel: Axes, found: Measured, *, dots: str, front: str, star: str, line: str) -> None:
    """Draw every plan, the front with its intervals, the plan taken and the limit, in these colours."""
    best = sorted((plan for plan in found.plans if plan.front), key=lambda plan: plan.cost)
    chosen = next(plan for plan in found.plans if plan.chosen)
    area = [100 * plan.auroc for plan in best]
    panel.scatter(
        [plan.cost for plan in found.plans], [100 * plan.auroc for plan in found.plans], s=7, color=dots, label="a plan"
    )
    panel.errorbar(
        [plan.cost for plan in best],
        area,
        yerr=[
            [100 * (plan.auroc - plan.low) for plan in best],
            [100 * (plan.high - plan.auroc) for plan in best],
        ],
        color=front,
        drawstyle="steps-post",
        marker="o",
        ms=4,
        lw=1.2,
        elinewidth=0.7,
        capsize=2,
        label="none beats these in both; 95 % intervals",
    )
    panel.plot(chosen.cost, 100 * chosen.auroc, "*", ms=15, color=star, ls="none", label="chosen", zorder=3)
    panel.axvline(found.limit, color=line, lw=0.8, ls=":")
    panel.set_xscale("log", base=2)
    panel.xaxis.set_major_formatter("{x:g}")
    # far below the front is nothing to choose from
    panel.set_ylim(100 * min(plan.low for plan in best) - 1, min(100.2, panel.get_ylim()[1]))
    panel.set_ylabel("mean AUROC, %")
    panel.spines[["top", "right"]].set_visible(False)
