"""What a report collects and shows: the right images, numbers that agree with the statistics, names that cannot act."""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from pictures import decode_uri

from diffood import zoo
from diffood.calibration.calibrate import Calibrated, calibrate_files
from diffood.calibration.evaluate import evaluate
from diffood.calibration.metrics.bootstrap import FprComparison
from diffood.calibration.metrics.comparison import WitnessComparison
from diffood.calibration.metrics.formatting import percent
from diffood.calibration.metrics.groups import Group
from diffood.calibration.metrics.intervals import Difference
from diffood.calibration.scored_files import ScoredFiles, score_sources
from diffood.errors import UsageError
from diffood.report.gallery import Extremes
from diffood.report.operating import operating_points
from diffood.report.page import render
from diffood.report.report import Report, report_on_calibration, report_on_sets
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.detector import Detector, ImageScore
from diffood.runtime.inputs.open import list_inputs
from diffood.runtime.method.witnesses.definition import Evidence
from diffood.runtime.method.witnesses.registry import WITNESSES
from diffood.zoo.images import load_set, unpack_set

# One UNet evaluation an image: these tests look at the report, not at detection.
FAST = {"start_times": (120,), "stride": 120, "repeats": 1, "guidance": 0.0}


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Calibrated, Extremes]:
    """A copy of the shipped bundle calibrated on 64 clothes, 32 others fitted on, and the extremes of those 64."""
    root = tmp_path_factory.mktemp("report")
    bundle = open_bundle(Path(shutil.copytree(zoo.BUNDLE, root / "bundle")))
    unpack_set("fashion-validation", root / "images", 96)
    detector = Detector.load(bundle, bundle.plan().changed(FAST), batch=8, threads=1)
    extremes = Extremes()
    sources = list_inputs([str(root / "images")])
    return calibrate_files(detector, sources, 0.05, 0.95, "pac", see=extremes.see), extremes


@pytest.fixture(scope="module")
def report(calibrated: tuple[Calibrated, Extremes], tmp_path_factory: pytest.TempPathFactory) -> Report:
    """A report on 20 clothes, 20 digits, and one texture."""
    done, root = calibrated[0], tmp_path_factory.mktemp("sets")
    scored: dict[str, ScoredFiles] = {}
    extremes = {"ind": Extremes(), "digits": Extremes(), "textures": Extremes()}
    for name, images, count in (("ind", "fashion-test", 20), ("digits", "digits", 20), ("textures", "textures", 1)):
        unpack_set(images, root / name, count)
        scored[name] = score_sources(done.detector, list_inputs([str(root / name)]), see=extremes[name].see)
    ood = {name: files for name, files in scored.items() if name != "ind"}
    evaluation = evaluate(done.calibration, scored["ind"], ood)
    return report_on_sets(done.detector, done.calibration, scored, extremes, evaluation)


@pytest.fixture(scope="module")
def grouped(calibrated: tuple[Calibrated, Extremes], tmp_path_factory: pytest.TempPathFactory) -> Report:
    """A report on 20 clothes, with upside-down ones as a near set and textures and digits as far ones, 10 each."""
    done, root = calibrated[0], tmp_path_factory.mktemp("grouped")
    scored: dict[str, ScoredFiles] = {}
    sets = {"ind": "fashion-test", "upside-down": "upside-down", "textures": "textures", "digits": "digits"}
    for name, images in sets.items():
        unpack_set(images, root / name, 20 if name == "ind" else 10)
        scored[name] = score_sources(done.detector, list_inputs([str(root / name)]))
    ood = {name: files for name, files in scored.items() if name != "ind"}
    groups: dict[str, Group] = {"upside-down": "near", "textures": "far", "digits": "far"}
    evaluation = evaluate(done.calibration, scored["ind"], ood, groups)
    nothing_kept = dict.fromkeys(scored, Extremes())
    return report_on_sets(done.detector, done.calibration, scored, nothing_kept, evaluation)


def outcome(score: float) -> ImageScore:
    image = np.zeros((1, 2, 2), np.float32)
    logits = np.array([1, 2, 3], np.float32)
    evidence = Evidence(image, logits, logits, np.full((1, 4), score), image[None, None].repeat(4, 1))
    return ImageScore(score, np.array([score]), evidence, stage=1, evaluations=4)


def test_extremes_are_the_ends_of_a_sort_whatever_the_order() -> None:
    scores = dict(zip(map(str, range(40)), np.random.default_rng(0).integers(0, 9, 40).astype(float), strict=True))
    found = []
    for order in (sorted(scores), sorted(scores, reverse=True)):
        extremes = Extremes(5)
        for identity in order:
            extremes.see(identity, outcome(scores[identity]))
        found.append(([image.id for image in extremes.highest], [image.id for image in extremes.lowest]))
    rising = sorted(scores, key=lambda identity: (scores[identity], identity))
    falling = sorted(scores, key=lambda identity: (-scores[identity], identity))
    assert found == [(falling[:5], rising[:5])] * 2


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_few_images_are_shown_once_and_a_score_that_is_not_finite_first(broken: float) -> None:
    extremes = Extremes(3)
    for identity, score in (("a", 1.0), ("b", broken), ("c", 0.0), ("d", 2.0)):
        extremes.see(identity, outcome(score))
    assert [image.id for image in extremes.highest] == ["b", "d", "a"]
    assert [image.id for image in extremes.lowest] == ["c"]
    assert extremes.highest[0].denoised.base is None  # holds no other repeat in memory


def test_the_chosen_point_is_the_calibration_and_the_evaluation(report: Report) -> None:
    (chosen,) = [point for point in report.points if point.chosen]
    assert chosen.threshold == report.threshold
    assert chosen.alarms == report.alarms == report.ind.flagged
    assert chosen.detected == tuple(row.flagged.rate for row in report.ood)
    assert report.evaluation is not None
    assert chosen.detected == tuple(found.detection_rate for found in report.evaluation.sets.values())
    thresholds = [point.threshold for point in report.points if point.threshold is not None]
    assert thresholds == sorted(thresholds, reverse=True)


def test_rates_that_need_more_images_say_how_many(report: Report) -> None:
    assert [(point.alpha, point.needed) for point in report.points if point.needed] == [
        (0.001, 2995),
        (0.01, 299),
        (0.02, 149),
    ]


@pytest.mark.parametrize("method", ["conformal", "quantile"])
def test_other_methods_have_points_too(calibrated: tuple[Calibrated, Extremes], method: str) -> None:
    done = calibrated[0]
    scores = np.array(done.calibration.scores)
    other = done.calibration.model_copy(update={"method": method, "delta": None})
    (point,) = [point for point in operating_points(other, scores, ()) if point.alpha == 0.2]
    assert point.alarms is not None
    assert point.alarms.flagged == 12  # floor(65 * 0.2) - 1 and floor(64 * 0.2)


def test_the_gallery_shows_what_the_detector_says(calibrated: tuple[Calibrated, Extremes], report: Report) -> None:
    detector, names = calibrated[0].detector, zoo.CLASS_NAMES.read_text().split("\n")
    cards = report.ood[0].most
    assert [card.score for card in cards] == sorted((card.score for card in cards), reverse=True)
    assert report.ood[0].least[0].score <= cards[-1].score
    scores = detector.score(load_set("digits").images[:20])
    for card in cards:
        index = int(card.id.removesuffix(".png"))
        assert card.score == pytest.approx(scores.score[index], abs=1e-4)
        assert card.flagged == (card.score > report.threshold)
        assert card.before[0].class_name == names[scores.predicted[index]]
        assert card.before[0].share == pytest.approx(scores.confidence[index], abs=1e-4)
        assert len(card.before) == len(card.after) == 3
        pixels = np.asarray(decode_uri(card.thumbnails.original))
        np.testing.assert_array_equal(pixels, load_set("digits").images[index])


def test_a_calibration_alone_has_no_p_values_and_no_rates(calibrated: tuple[Calibrated, Extremes]) -> None:
    found = report_on_calibration(*calibrated)
    assert (found.alarms, found.evaluation, found.points, found.classes, found.ood) == (None, None, (), (), ())
    assert found.ind.count == 64
    assert [card.score for card in found.ind.most] == calibrated[0].calibration.scores[::-1][:6]
    assert all(card.p_value is None for card in found.ind.most)
    page = render(found)
    check_page(page)
    assert "p-value 0" not in page
    assert found.guarantee in page


def test_a_calibration_says_what_if_some_images_were_ood(calibrated: tuple[Calibrated, Extremes]) -> None:
    found = report_on_calibration(*calibrated)
    (row,) = found.contamination  # a hundredth of 64 images is none
    rows = rows_of(render(found), "Table of contamination")
    cells = [f"{row.threshold:.4g}", "0.0%", "0.0%", f"{row.highest_threshold:.4g}"]
    assert rows["3 (5%)"] == " | ".join(cells)
    assert row.threshold < found.threshold == row.highest_threshold
    assert "Table of contamination" not in render(replace(found, contamination=()))


def test_the_page_stands_alone_and_is_well_formed(report: Report) -> None:
    page = render(report)
    check_page(page)
    assert page.count("<picture>") == 5  # three histograms, two curves
    assert "this bundle" in page
    for name in ("jump", "reconstruction", "logit_norm", "energy"):
        assert WITNESSES[name].meaning.split(":")[0].replace("'", "&#39;") in page


def rows_of(page: str, label: str) -> dict[str, str]:
    """The text of each row of the table of this name, by its first cell."""
    (table,) = [part for part in ElementTree.fromstring(page).iter("div") if part.get("aria-label") == label]
    rows = [[" ".join("".join(cell.itertext()).split()) for cell in row] for row in table.iter("tr")]
    return {first: " | ".join(rest) for first, *rest in rows}


def test_each_witness_alone_is_compared_as_the_evaluation_does(grouped: Report) -> None:
    assert grouped.evaluation is not None
    compared = grouped.evaluation.witnesses
    assert compared is not None
    page = render(grouped)
    check_page(page)
    rows = rows_of(page, "Table of witnesses alone")
    assert list(rows) == ["score", "combined", "jump", "reconstruction", "logit_norm", "energy"]
    for name, alone in compared.alone.items():
        gain = alone.difference
        assert f"{100 * gain.value:+.2f} {100 * gain.low:+.2f} to {100 * gain.high:+.2f}" in rows[name]
        assert rows[name].startswith(percent(alone.mean_auroc, 2))
        for key in grouped.evaluation.sets:
            assert percent(alone.auroc[key], 2) in rows[name]
        assert rows[name].count("ahead") == len(alone.ahead)
    assert rows["combined"].startswith(percent(grouped.evaluation.mean_auroc, 2))
    assert f"The best single witness here is <code>{compared.best}</code>" in page


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.01, 0.03, "It is better beyond chance."),
        (-0.01, 0.03, "These images are too few to tell them apart."),
        (-0.03, -0.01, "It is worse beyond chance:"),
    ],
)
def test_what_the_comparison_says_follows_its_interval(grouped: Report, low: float, high: float, said: str) -> None:
    assert grouped.evaluation is not None
    assert grouped.evaluation.witnesses is not None
    alone = grouped.evaluation.witnesses.alone
    gain, no_ratio = Difference((low + high) / 2, low, high, 0.0001), FprComparison(Difference(0, 0, 0, 1), None)
    row = replace(alone["jump"], difference=gain, fpr=no_ratio, ahead={"digits": 0.021})
    compared = WitnessComparison({**alone, "jump": row}, "jump")
    page = render(replace(grouped, evaluation=replace(grouped.evaluation, witnesses=compared)))
    assert said in page
    assert "Alone it is clearly ahead on digits (by 2.1 points)." in page
    row_text = rows_of(page, "Table of witnesses alone")["jump"]
    assert "below 0.001" in row_text
    assert "it has none" in row_text


def test_groups_have_their_means_and_their_sets_named(grouped: Report) -> None:
    assert grouped.evaluation is not None
    rows = rows_of(render(grouped), "Table of OOD sets")
    far = grouped.evaluation.groups["far"]
    assert percent(far.mean.auroc, 2) in rows["far mean of textures, digits"]
    assert percent(far.fpr_at_95_detection.high) in rows["far mean of textures, digits"]
    assert percent(grouped.evaluation.overall.mean.fpr_at_95_detection) in rows["mean"]
    assert list(rows)[-3:] == ["near mean of upside-down", "far mean of textures, digits", "mean"]


def test_a_set_of_one_image_leaves_the_comparison_out(report: Report) -> None:
    assert report.evaluation is not None
    assert report.evaluation.witnesses is None  # one texture has no variance
    assert "finds alone" not in render(report)


def test_the_same_report_gives_the_same_bytes(report: Report) -> None:
    assert render(report) == render(report)


def test_an_empty_set_is_refused(calibrated: tuple[Calibrated, Extremes]) -> None:
    none = ScoredFiles(
        np.empty(0), np.empty((0, 4)), np.empty(0, np.int64), np.empty(0, np.int64), (("a", "bad"),), 0, ()
    )
    with pytest.raises(UsageError, match="No usable image in the ind set; 1 files were set aside"):
        report_on_sets(calibrated[0].detector, calibrated[0].calibration, {"ind": none}, {"ind": Extremes()}, None)


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
