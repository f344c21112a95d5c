"""The picture of a tuning: every plan that was measured, cost against detection."""

from pathlib import Path

from matplotlib.figure import Figure

from diffood.calibration.pictures import PALETTE, save
from diffood.calibration.tune import Tuned


def draw_tuning(found: Tuned, path: Path) -> None:
    """Draw every plan that was measured, cost against mean AUROC, the front with intervals, and the plan taken."""
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    panel = figure.subplots()
    choice, unit = found.choice, "UNet evaluations" if found.limit.kind == "evaluations" else "milliseconds"
    front = choice.front
    panel.scatter(
        [one.cost for one in found.candidates],
        [100 * one.mean.value for one in found.candidates],
        s=7,
        color="#B0B0B0",
        label="a plan",
    )
    panel.errorbar(
        [one.cost for one in front],
        [100 * one.mean.value for one in front],
        yerr=[
            [100 * (one.mean.value - one.mean.low) for one in front],
            [100 * (one.mean.high - one.mean.value) for one in front],
        ],
        color=PALETTE[0],
        drawstyle="steps-post",
        marker="o",
        ms=4,
        lw=1.2,
        elinewidth=0.7,
        capsize=2,
        label="none beats these in both; 95 % intervals",
    )
    for colour, (name, one) in zip(PALETTE[2:], found.compared.items(), strict=False):
        panel.plot(one.cost, 100 * one.mean.value, "D", ms=6, color=colour, ls="none", label=f"plan {name}")
    panel.plot(
        choice.chosen.cost, 100 * choice.chosen.mean.value, "*", ms=15, color=PALETTE[1], ls="none", label="chosen"
    )
    panel.axvline(found.limit.most, color="black", lw=0.8, ls=":")
    panel.annotate(
        " limit", (found.limit.most, 0.02), xycoords=panel.get_xaxis_transform(), ha="left", va="bottom", fontsize=8
    )
    panel.set_xscale("log", base=2)
    panel.xaxis.set_major_formatter("{x:g}")
    low = min(one.mean.low for one in (*front, *found.compared.values()))
    panel.set_ylim(100 * low - 1, min(100.2, panel.get_ylim()[1]))  # far below the front is nothing to choose from
    sets = "OOD images made from in-distribution ones" if found.images.made else "the OOD sets given"
    panel.set(xlabel=f"{unit} an in-distribution image, on average", ylabel="mean AUROC, %")
    panel.set_title(f"Cost and detection of {len(found.candidates)} plans, on {sets}", loc="left", fontsize=9)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    panel.spines[["top", "right"]].set_visible(False)
    save(figure, path)
