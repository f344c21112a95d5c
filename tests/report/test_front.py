"""The picture of a front: one step after another, whatever the order in which plans were measured."""

from matplotlib.figure import Figure

from diffood.report.front import plot_front
from diffood.runtime.bundle.tuning import Measured, MeasuredPlan


def test_the_front_rises_from_the_cheapest_plan_on() -> None:
    known = ((4, 0.96, True), (1, 0.9, True), (3, 0.8, False), (2, 0.94, True))
    plans = tuple(
        MeasuredPlan(cost=cost, auroc=auroc, low=auroc - 0.01, high=auroc + 0.01, front=front, chosen=cost == 2)
        for cost, auroc, front in known
    )
    panel = Figure().subplots()
    found = Measured(unit="UNet evaluations", limit=3, made=False, plans=plans)
    plot_front(panel, found, dots="grey", front="blue", star="red", line="black")
    line = next(line for line in panel.lines if line.get_drawstyle() == "steps-post")
    assert [list(line.get_xdata()), [round(value) for value in line.get_ydata()]] == [[1, 2, 4], [90, 94, 96]]
