"""diffood evaluate on real images: groups, witnesses and accuracy; the numbers are scikit-learn's."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from sklearn.metrics import accuracy_score, roc_auc_score, roc_curve

from diffood.calibration.metrics.comparison import compare_witnesses
from diffood.calibration.metrics.evaluation import evaluate_scores
from diffood.calibration.metrics.intervals import ScoredSets
from diffood.calibration.scored_files import ScoredFiles
from diffood.cli.text.evaluation import describe_evaluation
from diffood.runtime.bundle.bundle import Bundle
from diffood.runtime.detector import Detector
from diffood.zoo.images import load_set

MACHINE = ("--batch", "8", "--threads", "1")
IMAGES = 12
OOD = ("digits", "textures", "photos")
WITNESSES = ("jump", "reconstruction", "logit_norm", "energy")
COLUMNS = 100

Run = Callable[..., Any]  # gives conftest.Done


@pytest.fixture(scope="module")
def sorted_folder(tmp_path_factory: pytest.TempPathFactory, small_bundle: Bundle) -> Path:
    """In-distribution images in one folder a class, "T-shirt/top" being a folder in a folder; read-only."""
    root, clothes, names = (
        tmp_path_factory.mktemp("sorted"),
        load_set("fashion-test"),
        small_bundle.manifest.class_names,
    )
    assert clothes.labels is not None
    for index in range(IMAGES):
        path = root / names[clothes.labels[index]] / f"{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(clothes.images[index]).save(path)
    return root


@pytest.fixture(scope="module")
def ood_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images for each set of OOD; read-only."""
    root = tmp_path_factory.mktemp("ood")
    for name in OOD:
        (root / name).mkdir()
        for index, image in enumerate(load_set(name).images[:IMAGES]):
            Image.fromarray(image).save(root / name / f"{index:04d}.png")
    return root


@pytest.fixture
def words(calibrated: Path, sorted_folder: Path, ood_folders: Path) -> tuple[object, ...]:
    """Digits are near, textures far, photos of no group."""
    options = {"--near": "digits", "--far": "textures", "--ood": "photos"}
    given = [word for option, name in options.items() for word in (option, f"{name}={ood_folders / name}")]
    return ("evaluate", calibrated, "--ind", sorted_folder, *given, *MACHINE)


def reference(ind: npt.NDArray[np.float64], ood: npt.NDArray[np.float64]) -> tuple[float, float]:
    """AUROC and FPR@95 by scikit-learn."""
    truth, scores = np.repeat([0, 1], [len(ind), len(ood)]), np.concatenate([ind, ood])
    false, true, _ = roc_curve(truth, scores, drop_intermediate=False)
    return float(roc_auc_score(truth, scores)), float(false[np.argmax(true >= 0.95)])


def test_numbers_are_scikit_learns_on_the_same_scores(run: Run, words: tuple[object, ...], calibrated: Path) -> None:
    content = run(*words, "--json").content
    detector = Detector.open(calibrated, batch=8, threads=1)
    clothes = load_set("fashion-test")
    assert clothes.labels is not None
    ind = detector.score(clothes.images[:IMAGES])
    found = {name: detector.score(load_set(name).images[:IMAGES]) for name in OOD}
    fused = {name: reference(ind.score, scores.score) for name, scores in found.items()}
    for name in OOD:
        metrics = content["sets"][name]
        assert (metrics["auroc"], metrics["fpr_at_95_detection"]) == pytest.approx(fused[name])
    assert content["overall"]["mean"]["fpr_at_95_detection"] == pytest.approx(
        np.mean([row[1] for row in fused.values()])
    )
    assert list(content["witnesses"]["alone"]) == list(WITNESSES)
    for index, row in enumerate(content["witnesses"]["alone"].values()):
        alone = {name: reference(ind.witnesses[:, index], scores.witnesses[:, index]) for name, scores in found.items()}
        assert row["auroc"] == pytest.approx({name: area for name, (area, _) in alone.items()})
        assert row["mean_fpr_at_95_detection"] == pytest.approx(np.mean([rate for _, rate in alone.values()]))
        assert row["difference"]["value"] == pytest.approx(content["mean_auroc"] - row["mean_auroc"])
    accuracy = accuracy_score(clothes.labels[:IMAGES], ind.predicted)
    assert (content["labelled"], content["rejection"]["accuracy"]) == (IMAGES, pytest.approx(accuracy))


def test_groups_are_in_json_with_both_intervals_and_their_worst(run: Run, words: tuple[object, ...]) -> None:
    content = run(*words, "--json").content
    assert {name: group["sets"] for name, group in content["groups"].items()} == {
        "near": ["digits"],
        "far": ["textures"],
    }
    assert content["overall"]["sets"] == ["digits", "textures", "photos"]
    for group in (*content["groups"].values(), content["overall"]):
        for number in ("auroc", "fpr_at_95_detection"):
            assert group[number]["low"] <= group["mean"][number] <= group[number]["high"]
            assert group[number]["low"] < group[number]["high"]
        assert group["lowest_auroc"] == min(group["sets"], key=content["auroc"].__getitem__)


def test_the_table_shows_it_within_a_hundred_columns(run: Run, words: tuple[object, ...], tmp_path: Path) -> None:
    done = run(*words, "--output", tmp_path)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert all(len(line) <= COLUMNS for line in lines if not line.startswith(("false alarms", "guarantee")))
    first = [line.split("  ")[0] for line in lines]
    rows = first[first.index("OOD set") + 1 :]
    assert rows[:6] == ["digits", "near mean", "textures", "far mean", "photos", "mean"]
    assert re.search(rf"^AUROC +fused +{' +'.join(WITNESSES)}$", done.out, re.MULTILINE)
    assert re.search(r"^worst near: AUROC [\d.]+% on digits, FPR@95 [\d.]+% on digits$", done.out, re.MULTILINE)
    assert re.search(r"^accuracy +\d+\.\d%; .* when 95 / 90 / 80% are kept; AURC .*; OSCR ", done.out, re.MULTILINE)
    best = json.loads((tmp_path / "evaluation.json").read_text())["witnesses"]["best"]
    assert f"Best alone: {best}, mean AUROC" in done.out
    assert (tmp_path / "rejection.png").read_bytes().startswith(b"\x89PNG")


def test_accuracy_is_measured_without_an_ood_set(
    run: Run, calibrated: Path, sorted_folder: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    done = run("evaluate", calibrated, "--ind", sorted_folder, "--output", tmp_path, "--report", page, *MACHINE)
    assert (done.code, done.err) == (0, "")
    assert re.search(r"^accuracy +\d+\.\d%; .* when 95 / 90 / 80% are kept; AURC 0\.\d+$", done.out, re.MULTILINE)
    content = json.loads((tmp_path / "evaluation.json").read_text())["rejection"]
    assert content["oscr"] is None
    assert 0 <= content["accuracy"] <= 1
    assert (tmp_path / "rejection.png").read_bytes().startswith(b"\x89PNG")
    assert "Accuracy of accepted images" in page.read_text()


def test_without_groups_and_classes_nothing_is_said_of_them(
    run: Run, calibrated: Path, folders: Path, tmp_path: Path
) -> None:
    ood, kept = ("--ood", f"digits={folders / 'digits'}", "--output", tmp_path / "results"), tmp_path / "mine"
    kept.write_text("mine")
    (tmp_path / "results").mkdir()
    for planted in ("evaluation.json", "scores.png"):
        (tmp_path / "results" / planted).symlink_to(kept)
    done = run("evaluate", calibrated, "--ind", folders / "ind", *ood, *MACHINE)
    assert done.code == 0
    assert kept.read_text() == "mine"  # results replace planted links, and are not written through them
    assert not re.search("near mean|far mean|worst near|worst far|accuracy", done.out)
    content = json.loads((tmp_path / "results" / "evaluation.json").read_text())
    assert (content["groups"], content["rejection"], content["labelled"]) == ({}, None, 0)
    assert not (tmp_path / "results" / "rejection.png").exists()


def test_some_images_without_a_class_are_counted(
    run: Run, calibrated: Path, sorted_folder: Path, folders: Path, tmp_path: Path
) -> None:
    source = next(sorted_folder.rglob("*.png"))
    (tmp_path / source.parent.relative_to(sorted_folder)).mkdir(parents=True)
    for place in (source.relative_to(sorted_folder), "loose.png"):
        (tmp_path / place).write_bytes(source.read_bytes())
    done = run("evaluate", calibrated, "--ind", tmp_path, "--ood", f"digits={folders / 'digits'}", *MACHINE)
    assert "not measured: 1 of 2 in-distribution images lie in a folder named like a class" in done.out


def test_many_sets_and_all_witnesses_still_fit_a_hundred_columns(calibrated: Path) -> None:
    """A dozen sets, and seven witnesses, which is all there are."""
    detector, generator = Detector.open(calibrated, batch=8, threads=1), np.random.default_rng(0)
    names = ("jump", "reconstruction", "logit_norm", "energy", "max_logit", "msp", "margin")

    def made_up(count: int, shift: float) -> ScoredFiles:
        values = generator.normal(shift, 1, (count, len(names)))
        ids = tuple(f"{shift} {index}" for index in range(count))  # and bytes of their own
        return ScoredFiles(
            values.mean(axis=1), values[:, :4], np.zeros(count, np.int64), np.full(count, 12), (), ids, ids
        )

    ind, ood = made_up(60, 0), {f"set number {index:02d}": made_up(50, index / 4) for index in range(12)}
    result = evaluate_scores(detector.calibration(), ind, ood)
    fused = ScoredSets(ind.scores, {name: files.scores for name, files in ood.items()})
    result = replace(result, witnesses=compare_witnesses(fused, dict.fromkeys(names, fused)))
    lines = [
        line
        for line in describe_evaluation(result, ["one"])
        if not line.startswith(("false alarms", "guarantee", "class"))
    ]
    assert len(lines) > 2 * len(ood)
    assert max(map(len, lines)) <= COLUMNS
