"""What the demo says: ten lines of at most eighty columns, and commands that can be copied."""

import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from diffood.errors import MissingExtraError, UsageError
from diffood.export.sources.classifiers.classifier import load_classifier
from diffood.export.sources.classifiers.source import ClassifierSource
from diffood.runtime.bundle.bundle import open_bundle
from diffood.zoo import demo
from diffood.zoo.demo import MARKER, WIDTH, DemoResult, describe_result, run_demo, wrap_command
from diffood.zoo.images import load_set
from diffood.zoo.models import embedded_models
from diffood.zoo.pairs import PAIRS

GUARANTEE = (
    "With 95.0% confidence, at most 4.91% of in-distribution images like these 466 are flagged (asked for: 5.00%)."
)


@pytest.mark.parametrize("name", PAIRS)
def test_the_result_holds_every_fact_in_ten_lines_of_eighty_columns(name: str) -> None:
    unseen = list(PAIRS[name].unseen)
    result = DemoResult(
        model=name,
        auroc=dict.fromkeys(unseen, 1.0),
        mean_auroc=0.9947,
        false_alarms={"rate": 0.015, "count": 400, "interval": [0.0055, 0.0324]},
        sets={name: {"detection_rate": 0.8 if name == unseen[-1] else 1.0} for name in unseen},
        threshold=3.4,
        guarantee=GUARANTEE,
        calibration_images=466,
        unet_evaluations_per_image=3.02,
        images_per_second=87.8,
        set_aside={"broken/empty.png": "The file is empty (0 bytes)."},
    )
    lines = describe_result(result, Path("demo-output"))
    assert len(lines) <= 10
    assert max(map(len, lines)) <= WIDTH
    text = " ".join(" ".join(lines).split())
    for fact in (
        f"1.5% of 400 fresh {PAIRS[name].things}",
        "0.5% to 3.2%",
        GUARANTEE,
        *unseen,
        "80.0% 96.0%",
        "99.47%",
        "87.8",
        "3.0",
        "1 broken",
    ):
        assert fact in text


# What the verbs leave in a demo's folder, also where it was interrupted.
LEFT = (
    "verdicts.jsonl", "verdicts.jsonl.summary.json", "verdicts.jsonl.journal", ".verdicts.jsonl.summary.json.tmp",
    ".bundle.k3x9", "summary.json", "strip.png",
)  # fmt: skip


class _Begun(Exception):  # noqa: N818 - no error
    pass


def test_a_demo_replaces_an_earlier_ones_folder_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(*_: object) -> None:
        raise _Begun

    monkeypatch.setattr(demo, "_unpack", begin)
    for name in LEFT:
        (tmp_path / name).touch()
    with pytest.raises(UsageError, match="neither an empty folder nor an earlier demo's"):
        run_demo(PAIRS["clothes"], tmp_path, print)  # nothing says that a demo made it
    for stranger in ("thesis.txt", "bundles", "verdicts.csv"):
        (tmp_path / MARKER).touch()
        (tmp_path / stranger).touch()
        with pytest.raises(UsageError, match="neither an empty folder"):
            run_demo(PAIRS["clothes"], tmp_path, print)
        (tmp_path / stranger).unlink()
    with pytest.raises(_Begun):
        run_demo(PAIRS["clothes"], tmp_path, print)
    assert [entry.name for entry in tmp_path.iterdir()] == [MARKER]


def test_a_long_command_is_wrapped_into_one_that_means_the_same() -> None:
    words = ["diffood", "evaluate", "a folder", "--ind", "x" * 60, "--ood", "digits=" + "y" * 40, "--json"]
    wrapped = wrap_command(words)
    assert shlex.split("\n".join(wrapped).removeprefix("$ ").replace("\\\n", "")) == words
    assert max(map(len, wrapped)) <= WIDTH


def test_models_without_a_bundle_name_the_packages_that_export_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"needs torch: pip install 'diffood\[export\]'"):
        run_demo(PAIRS["materials"], tmp_path / "demo", print)
    assert not (tmp_path / "demo").exists()


def test_the_stored_classifier_knows_surfaces_at_held_out_places() -> None:
    pair, tested = PAIRS["materials"], load_set("surfaces-test")
    classifier = load_classifier(ClassifierSource(pair.classifier, pair.classifier_weights), 32, 32)
    images = torch.from_numpy(tested.images[:200].transpose(0, 3, 1, 2) / np.float32(255))
    with torch.no_grad():
        predicted = classifier.model(images)[0].argmax(dim=1).numpy()
    assert tested.labels is not None
    assert np.mean(predicted == tested.labels[:200]) > 0.9


@pytest.mark.slow
def test_surfaces_in_colour_go_the_whole_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of fewer images than the command takes, which costs minutes."""
    for name, count in (("CALIBRATION_IMAGES", 150), ("TEST_IMAGES", 40), ("OOD_IMAGES", 12), ("MIXED_IMAGES", 2)):
        monkeypatch.setattr(demo, name, count)
    said: list[str] = []
    result = run_demo(PAIRS["materials"], tmp_path / "demo", said.append)
    assert "CC-BY-SA-3.0" in said[1]
    assert len(result.set_aside) == 5
    assert result.false_alarms["rate"] < 0.15
    assert min(result.auroc["clothes"], result.auroc["digits"]) > 0.75
    manifest = open_bundle(tmp_path / "demo" / "bundle").manifest
    assert (manifest.image, len(manifest.class_names)) == (PAIRS["materials"].shape, 8)
    found = embedded_models(manifest)
    assert found is not None
    assert found.unet == PAIRS["materials"].unet
