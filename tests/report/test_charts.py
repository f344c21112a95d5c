"""Charts are drawn of any data, whatever a user calls a set, and the same data gives the same bytes."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from pictures import decode_uri
from PIL import Image
from sklearn.metrics import auc, roc_curve

from diffood.calibration.metrics.rates import auroc
from diffood.report.charts.image_strip import StripImage, draw_strip
from diffood.report.charts.roc_curve import roc_points
from diffood.report.charts.score_axis import FAR, ScoreAxis
from diffood.report.charts.score_histogram import draw_histograms, histogram_picture
from diffood.report.charts.style import LIGHT
from diffood.report.charts.thumbnails import LARGEST_SIDE, make_thumbnails
from diffood.report.charts.tuning_front import plot_front
from diffood.runtime.bundle.tuning import MeasuredPlan, TuningMeasurement


def test_names_of_sets_and_classes_are_no_formulas(tmp_path: Path) -> None:
    scores, pixels = np.arange(9.0), np.zeros((1, 4, 4), np.uint8)
    names = ["ind", "a$\\frac{$", "$", "_hidden"]
    draw_histograms(dict.fromkeys(names, scores), 5.0, "$", tmp_path / "scores.png")
    draw_strip([StripImage(name, pixels, pixels, name, 0.5, 0.01, is_ood=True) for name in names], tmp_path / "s.png")
    for path in tmp_path.iterdir():
        Image.open(path).load()


def test_the_same_data_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("first.png", "second.png"):
        draw_histograms({"ind": np.arange(9.0)}, 5.0, "score", tmp_path / name)
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()


def test_histograms_are_drawn_of_any_scores() -> None:
    for scores in ([1.0, 1.0], [-3.0, -2.0], [0.0, 1e9], [-1e-9, 1e-9]):
        for threshold in (-2.5, 1.0):
            values = np.array(scores)
            axis = ScoreAxis.of([values], threshold)
            case = f"{scores} at {threshold}"
            assert axis.low < min(*scores, threshold), case
            assert axis.high > threshold, case
            low, high = axis.ends
            assert all(low <= axis.place(tick) <= high for tick in axis.ticks), case
            picture = histogram_picture(axis, values, values, "")
            assert decode_uri(picture.light).size == decode_uri(picture.dark).size == (picture.width, picture.height), (
                case
            )


def test_the_axis_is_compressed_only_where_scores_reach_far_above_the_threshold() -> None:
    near, far = ScoreAxis(1.0, 0.0, FAR - 0.1), ScoreAxis(1.0, 0.0, FAR + 0.1)
    assert near.place(3.0) == 3.0
    assert far.place(3.0) < 3.0
    assert 0 == far.place(0.0) < far.place(1.0) < far.place(3.0)


def test_roc_points_enclose_the_auroc_of_the_table() -> None:
    random = np.random.default_rng(1)
    ind, ood = random.integers(0, 30, 200).astype(float), random.integers(10, 40, 100).astype(float)
    false_alarms, detected = roc_points(ind, ood)
    np.testing.assert_allclose(auc(false_alarms, detected), auroc(ind, ood), atol=1e-12)
    theirs = roc_curve(np.repeat([0, 1], [200, 100]), np.concatenate([ind, ood]), drop_intermediate=False)
    np.testing.assert_allclose([false_alarms, detected], theirs[:2], atol=1e-12)


def test_the_front_rises_from_the_cheapest_plan_on() -> None:
    known = ((4, 0.96, True), (1, 0.9, True), (3, 0.8, False), (2, 0.94, True))
    plans = tuple(
        MeasuredPlan(cost=cost, auroc=auroc, low=auroc - 0.01, high=auroc + 0.01, front=front, chosen=cost == 2)
        for cost, auroc, front in known
    )
    panel = Figure().subplots()
    plot_front(panel, TuningMeasurement(unit="UNet evaluations", limit=3, made=False, plans=plans), LIGHT)
    line = next(line for line in panel.lines if line.get_drawstyle() == "steps-post")
    assert [list(line.get_xdata()), [round(value) for value in line.get_ydata()]] == [[1, 2, 4], [90, 94, 96]]


def test_thumbnails_of_large_images_are_small_and_keep_their_colour() -> None:
    red = np.zeros((3, 500, 250), np.uint8)
    red[0] = 255
    found = make_thumbnails(red, 255 - red)
    assert (found.width, found.height) == (LARGEST_SIDE // 2, LARGEST_SIDE)
    assert decode_uri(found.original).getpixel((3, 3)) == (255, 0, 0)
    assert decode_uri(found.denoised).getpixel((3, 3)) == (0, 255, 255)
    heat = decode_uri(found.difference)
    assert heat.size == (found.width, found.height)
    assert heat.getpixel((3, 3)) == (252, 254, 164)  # the end of the scale: all channels changed, up or down
