"""A report shows the right images, numbers that agree with the statistics, and names that cannot act."""

import re
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from pictures import decode_uri

from diffood import zoo
from diffood.calibration.calibrate import Calibrated, calibrate_files
from diffood.calibration.evaluate import Evaluated
from diffood.calibration.metrics.bootstrap import FprComparison
from diffood.calibration.metrics.comparison import WitnessComparison
from diffood.calibration.metrics.evaluation import Evaluation, evaluate_scores
from diffood.calibration.metrics.formatting import percent
from diffood.calibration.metrics.groups import Group
from diffood.calibration.metrics.intervals import Difference
from diffood.calibration.scored_files import ScoredFiles, score_sources
from diffood.errors import UsageError
from diffood.report.contents import Performance, Report
from diffood.report.gallery import Extremes, SetExtremes
from diffood.report.operating import operating_points
from diffood.report.page import render
from diffood.report.report import report_on_calibration, report_on_sets
from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.detector import Detector
from diffood.runtime.inputs.open import list_inputs
from diffood.runtime.method.witnesses.registry import WITNESSES
from diffood.zoo.images import load_set, unpack_set

GROUPS: dict[str, Group] = {"upside-down": "near", "textures": "far", "digits": "far"}


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory, small_bundle: Bundle) -> tuple[Calibrated, Extremes]:
    """A small bundle calibrated on 64 clothes, 32 others fitted on, and the extremes of those 64."""
    root = tmp_path_factory.mktemp("report")
    bundle = open_bundle(Path(shutil.copytree(small_bundle.path, root / "bundle")))
    unpack_set("fashion-validation", root / "images", 96)
    detector, extremes = Detector.load(bundle, bundle.plan(), batch=8, threads=1), Extremes()
    sources = list_inputs([str(root / "images")])
    return calibrate_files(detector, sources, 0.05, 0.95, "pac", see=extremes.see), extremes


def report_of(done: Calibrated, root: Path, sets: dict[str, tuple[str, int]], groups: dict[str, Group]) -> Report:
    """A report on the first images of embedded sets."""
    files, extremes = {}, SetExtremes()
    for name, (images, count) in sets.items():
        unpack_set(images, root / name, count)
        files[name] = score_sources(done.detector, list_inputs([str(root / name)]), see=partial(extremes.see, name))
    ood = {name: found for name, found in files.items() if name != "ind"}
    evaluation = evaluate_scores(done.calibration, files["ind"], ood, groups)
    return report_on_sets(Evaluated(done.detector, done.calibration, files, evaluation), extremes)


@pytest.fixture(scope="module")
def report(calibrated: tuple[Calibrated, Extremes], tmp_path_factory: pytest.TempPathFactory) -> Report:
    """A report on 20 clothes, 20 digits, and one texture."""
    sets = {"ind": ("fashion-test", 20), "digits": ("digits", 20), "textures": ("textures", 1)}
    return report_of(calibrated[0], tmp_path_factory.mktemp("sets"), sets, {})


@pytest.fixture(scope="module")
def grouped(calibrated: tuple[Calibrated, Extremes], tmp_path_factory: pytest.TempPathFactory) -> Report:
    """A report on 20 clothes, with upside-down ones as a near set and textures and digits as far ones, 10 each."""
    sets = {"ind": ("fashion-test", 20)} | {name: (name, 10) for name in GROUPS}
    return report_of(calibrated[0], tmp_path_factory.mktemp("grouped"), sets, GROUPS)


def performance_of(report: Report) -> tuple[Performance, Evaluation]:
    assert report.performance is not None
    assert report.performance.evaluation is not None
    return report.performance, report.performance.evaluation


def test_the_chosen_point_is_the_calibration_and_the_evaluation(report: Report) -> None:
    performance, evaluation = performance_of(report)
    (chosen,) = [point for point in performance.points if point.chosen]
    assert chosen.threshold == report.fitted.threshold
    assert chosen.alarms == performance.alarms == report.ind.flagged
    assert chosen.detected == tuple(row.flagged.rate for row in performance.ood)
    assert chosen.detected == tuple(found.detection_rate for found in evaluation.sets.values())
    thresholds = [point.threshold for point in performance.points if point.threshold is not None]
    assert thresholds == sorted(thresholds, reverse=True)
    too_few = {point.alpha: point.needed for point in performance.points if point.needed}
    assert too_few == {0.001: 2995, 0.01: 299, 0.02: 149}


def test_other_methods_have_points_too(calibrated: tuple[Calibrated, Extremes]) -> None:
    calibration = calibrated[0].calibration
    for method in ("conformal", "quantile"):
        other = calibration.model_copy(update={"method": method, "delta": None})
        points = operating_points(other, np.array(calibration.scores), ())
        (alarms,) = [point.alarms for point in points if point.alpha == 0.2]
        assert alarms is not None
        assert alarms.flagged == 12, method  # floor(65 * 0.2) - 1 and floor(64 * 0.2)


def test_the_gallery_shows_what_the_detector_says(calibrated: tuple[Calibrated, Extremes], report: Report) -> None:
    detector, names = calibrated[0].detector, zoo.CLASS_NAMES.read_text().split("\n")
    digits = performance_of(report)[0].ood[0]
    cards = digits.most
    assert [card.score for card in cards] == sorted((card.score for card in cards), reverse=True)
    assert digits.least[0].score <= cards[-1].score
    scores = detector.score(load_set("digits").images[:20])
    for card in cards:
        index = int(card.id.removesuffix(".png"))
        assert card.score == pytest.approx(scores.score[index], abs=1e-4)
        assert card.flagged == (card.score > report.fitted.threshold)
        assert card.before[0].class_name == names[scores.predicted[index]]
        assert card.before[0].probability == pytest.approx(scores.confidence[index], abs=1e-4)
        assert len(card.before) == len(card.after) == 3
        pixels = np.asarray(decode_uri(card.thumbnails.original))
        np.testing.assert_array_equal(pixels, load_set("digits").images[index])


def test_a_calibration_alone_has_no_p_values_and_no_rates(calibrated: tuple[Calibrated, Extremes]) -> None:
    found = report_on_calibration(*calibrated)
    assert found.performance is None
    assert found.ind.count == 64
    assert [card.score for card in found.ind.most] == calibrated[0].calibration.scores[::-1][:6]
    assert all(card.p_value is None for card in found.ind.most)
    page = render(found)
    check_page(page)
    assert "p-value 0" not in page
    assert found.fitted.guarantee in page


def test_a_calibration_says_what_if_some_images_were_ood(calibrated: tuple[Calibrated, Extremes]) -> None:
    found = report_on_calibration(*calibrated)
    images = found.calibrated_on
    assert images is not None
    (row,) = images.contamination  # a hundredth of 64 images is none
    rows = rows_of(render(found), "Table of contamination")
    cells = [f"{row.threshold:.4g}", "0.0%", "0.0%", f"{row.highest_threshold:.4g}"]
    assert rows["3 (5%)"] == " | ".join(cells)
    assert row.threshold < found.fitted.threshold == row.highest_threshold
    assert "Table of contamination" not in render(replace(found, calibrated_on=replace(images, contamination=())))


def test_the_page_stands_alone_and_is_well_formed(report: Report) -> None:
    page = render(report)
    check_page(page)
    assert page == render(report)
    assert page.count("<picture>") == 6  # three histograms, two curves, the bounds of every threshold
    assert "this bundle" in page
    for name in ("jump", "reconstruction", "logit_norm", "energy"):
        assert WITNESSES[name].meaning.split(":")[0].replace("'", "&#39;") in page


def rows_of(page: str, label: str) -> dict[str, str]:
    """The text of each row of the table of this name, by its first cell."""
    (table,) = [part for part in ElementTree.fromstring(page).iter("div") if part.get("aria-label") == label]
    rows = [[" ".join("".join(cell.itertext()).split()) for cell in row] for row in table.iter("tr")]
    return {first: " | ".join(rest) for first, *rest in rows}


def test_each_witness_alone_is_compared_as_the_evaluation_does(grouped: Report) -> None:
    evaluation = performance_of(grouped)[1]
    compared = evaluation.witnesses
    assert compared is not None
    page = render(grouped)
    check_page(page)
    rows = rows_of(page, "Table of witnesses alone")
    assert list(rows) == ["score", "combined", "jump", "reconstruction", "logit_norm", "energy"]
    for name, alone in compared.alone.items():
        gain = alone.difference
        assert f"{100 * gain.value:+.2f} {100 * gain.low:+.2f} to {100 * gain.high:+.2f}" in rows[name]
        assert rows[name].startswith(percent(alone.mean_auroc, 2))
        for key in evaluation.sets:
            assert percent(alone.auroc[key], 2) in rows[name]
        assert rows[name].count("better") == len(alone.ahead)
    assert rows["combined"].startswith(percent(evaluation.mean_auroc, 2))
    assert f"The best single witness here is <code>{compared.best}</code>" in page


def test_what_the_comparison_says_follows_its_interval(grouped: Report) -> None:
    performance, evaluation = performance_of(grouped)
    assert evaluation.witnesses is not None
    alone = evaluation.witnesses.alone
    for low, high, said in (
        (0.01, 0.03, "It is better beyond chance."),
        (-0.01, 0.03, "There are too few images to tell them apart."),
        (-0.03, -0.01, "It is worse beyond chance:"),
    ):
        gain, no_ratio = Difference((low + high) / 2, low, high, 0.0001), FprComparison(Difference(0, 0, 0, 1), None)
        row = replace(alone["jump"], difference=gain, fpr=no_ratio, ahead={"digits": 0.021})
        compared = replace(evaluation, witnesses=WitnessComparison({**alone, "jump": row}, "jump"))
        page = render(replace(grouped, performance=replace(performance, evaluation=compared)))
        assert said in page
        assert "Alone it is clearly better on digits (by 2.1 points)." in page
        row_text = rows_of(page, "Table of witnesses alone")["jump"]
        assert "below 0.001" in row_text
        assert "no false alarms" in row_text


def test_groups_have_their_means_and_their_sets_named(grouped: Report) -> None:
    evaluation = performance_of(grouped)[1]
    rows = rows_of(render(grouped), "Table of OOD sets")
    far = evaluation.groups["far"]
    assert percent(far.mean.auroc, 2) in rows["far mean of textures, digits"]
    assert percent(far.fpr_at_95_detection.high) in rows["far mean of textures, digits"]
    assert percent(evaluation.overall.mean.fpr_at_95_detection) in rows["mean"]
    assert list(rows)[-3:] == ["near mean of upside-down", "far mean of textures, digits", "mean"]


def test_a_set_of_one_image_leaves_the_comparison_out(report: Report) -> None:
    assert performance_of(report)[1].witnesses is None  # one texture has no variance
    assert "Each witness alone" not in render(report)


def test_an_empty_set_is_refused(calibrated: tuple[Calibrated, Extremes]) -> None:
    none = ScoredFiles(
        np.empty(0), np.empty((0, 4)), np.empty(0, np.int64), np.empty(0, np.int64), (("a", "bad"),), (), ()
    )
    with pytest.raises(UsageError, match="No usable image in the ind set; 1 files were set aside"):
        report_on_sets(Evaluated(calibrated[0].detector, calibrated[0].calibration, {"ind": none}, None), SetExtremes())


def check_page(page: str) -> None:
    """The laws of every page: well-formed, nothing from outside, no script, every picture decodes and is described."""
    root = ElementTree.fromstring(page)
    pictures = list(root.iter("img"))
    assert pictures
    assert all(picture.get("alt") for picture in pictures)
    for element in root.iter():
        assert element.tag not in ("script", "link", "iframe", "object", "embed")
        assert not any(name.startswith("on") for name in element.attrib)
        for name in ("src", "srcset"):
            if uri := element.get(name):
                decode_uri(uri)
        assert (element.get("href") or "#").startswith("#")
    assert not re.search(r"https?:|url\(|@import|file:", page)
    ids = {element.get("id") for element in root.iter()}
    assert {element.get("href") for element in root.iter("a")} <= {f"#{name}" for name in ids}
