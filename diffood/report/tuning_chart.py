"""The picture of a tuning: every plan that was measured, cost against detection."""

from pathlib import Path

from matplotlib.figure import Figure

from diffood.calibration.tuning.tune import Tuned
from diffood.report.charts.style import PALETTE, save
from diffood.report.front import plot_front


def draw_tuning(found: Tuned, path: Path) -> None:
    """Draw every plan that was measured, cost against mean AUROC, the front with intervals, and the plan taken."""
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    panel = figure.subplots()
    measured = found.measured()
    plot_front(panel, measured, dots="#B0B0B0", front=PALETTE[0], star=PALETTE[1], line="black")
    for colour, (name, one) in zip(PALETTE[2:], found.compared.items(), strict=False):
        panel.plot(one.cost, 100 * one.mean.value, "D", ms=6, color=colour, ls="none", label=f"plan {name}")
    panel.annotate(
        " limit", (measured.limit, 0.02), xycoords=panel.get_xaxis_transform(), ha="left", va="bottom", fontsize=8
    )
    panel.set_ylim(bottom=min([panel.get_ylim()[0], *(100 * one.mean.low - 1 for one in found.compared.values())]))
    sets = "OOD images made from in-distribution ones" if measured.made else "the OOD sets given"
    panel.set_xlabel(f"{measured.unit} an in-distribution image, on average")
    panel.set_title(f"Cost and detection of {len(measured.plans)} plans, on {sets}", loc="left", fontsize=9)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    save(figure, path)
