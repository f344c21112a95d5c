"""Cost against detection of the plans that `diffood tune` measured."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from diffood.calibration.tune import Tuned
from diffood.report.charts.style import PAGE_WIDTH, PALETTE, WIDTH, Picture, Theme, chart_picture, save_chart
from diffood.runtime.bundle.tuning import TuningMeasurement


def plot_front(panel: Axes, found: TuningMeasurement, theme: Theme) -> None:
    """Draw every plan, the front with its intervals, the plan chosen and the limit."""
    best = sorted((plan for plan in found.plans if plan.front), key=lambda plan: plan.cost)
    chosen = next(plan for plan in found.plans if plan.chosen)
    costs, area = [plan.cost for plan in found.plans], [100 * plan.auroc for plan in found.plans]
    panel.scatter(costs, area, s=7, color=theme.dots, label="a plan")
    below = [100 * (plan.auroc - plan.low) for plan in best]
    above = [100 * (plan.high - plan.auroc) for plan in best]
    panel.errorbar(
        [plan.cost for plan in best],
        [100 * plan.auroc for plan in best],
        yerr=[below, above],
        color=theme.ind,
        drawstyle="steps-post",
        marker="o",
        ms=4,
        lw=1.2,
        elinewidth=0.7,
        capsize=2,
        label="no plan beats these in both; 95 % intervals",
    )
    panel.plot(chosen.cost, 100 * chosen.auroc, "*", ms=15, color=theme.ood, ls="none", label="chosen", zorder=3)
    panel.axvline(found.limit, color=theme.line, lw=0.8, ls=":")
    panel.set_xscale("log", base=2)
    panel.xaxis.set_major_formatter("{x:g}")
    panel.xaxis.set_minor_formatter(NullFormatter())
    # far below the front is nothing to choose from
    panel.set_ylim(100 * min(plan.low for plan in best) - 1, min(100.2, panel.get_ylim()[1]))
    panel.set_ylabel("mean AUROC, %")


def draw_tuning(found: Tuned, path: Path) -> None:
    """Write the plans, the front, and the plans that the bundle had before, as PNG."""
    measured = found.measured()

    def draw(figure: Figure, theme: Theme) -> None:
        panel = figure.subplots()
        plot_front(panel, measured, theme)
        for colour, (name, one) in zip(PALETTE[2:], found.compared.items(), strict=False):
            panel.plot(one.cost, 100 * one.mean.value, "D", ms=6, color=colour, ls="none", label=f"plan {name}")
        panel.annotate(
            " limit", (measured.limit, 0.02), xycoords=panel.get_xaxis_transform(), ha="left", va="bottom", fontsize=8
        )
        panel.set_ylim(bottom=min([panel.get_ylim()[0], *(100 * one.mean.low - 1 for one in found.compared.values())]))
        sets = "OOD images made from in-distribution ones" if measured.made else "the OOD sets given"
        panel.set_xlabel(f"{measured.unit} per in-distribution image, on average")
        panel.set_title(f"Cost and detection of {len(measured.plans)} plans, on {sets}")
        figure.legend(loc="outside lower center", ncols=3)

    save_chart(draw, (WIDTH, 4.2), path)


def front_picture(found: TuningMeasurement) -> Picture:
    """Draw every plan, the front and the plan chosen, for a page."""
    chosen = next(plan for plan in found.plans if plan.chosen)
    alt = (
        f"Cost against mean AUROC of {len(found.plans)} plans. The one chosen costs {chosen.cost:.3g} {found.unit} per "
        f"image and has {chosen.auroc:.2%}."
    )

    def draw(figure: Figure, theme: Theme) -> None:
        panel = figure.subplots()
        plot_front(panel, found, theme)
        panel.set_xlabel(f"{found.unit} per image")

    return chart_picture(draw, (PAGE_WIDTH, 2.7), alt)
