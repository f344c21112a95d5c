"""diffood tune from the command line: what it says and leaves, and what it refuses."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffood.calibration.tuning.timing import EngineOption, Speed
from diffood.cli.text.tuning import describe_speeds
from diffood.runtime.bundle.bundle import MANIFEST, open_bundle
from diffood.runtime.bundle.files import write_record
from diffood.runtime.bundle.tuning import load_tuned
from diffood.runtime.detector import Detector
from diffood.runtime.method.plan import DEFAULT
from diffood.runtime.method.plan import FAST as FAST_PLAN
from diffood.zoo.images import load_set, unpack_set

CHEAP = DEFAULT.changed({"start_times": (240,), "stride": 240, "repeats": 1, "guidance": 0.0, "stages": ()})
NO_JUMP = {"witnesses": FAST_PLAN.witnesses}
PLANS = [CHEAP, CHEAP.changed({"repeats": 2, "stages": (1,)}), CHEAP.changed({"witnesses": ("jump",)})]
Run = Callable[..., Any]  # gives conftest.Done
FAST = ("--images", 40, "--batch", 16, "--threads", 1)


def test_an_engine_is_timed_at_the_batches_it_takes() -> None:
    """An engine built for 1 to 8 rows next to one that takes any number, and one that takes a single row."""
    speeds = [
        Speed(EngineOption("fp16", "tensorrt", True), {8: 900.0}, 1.5),
        Speed(EngineOption("fp32", "onnxruntime-cpu", True), {8: 90.0, 32: 100.0}, 12.0),
        Speed(EngineOption("fp32", "tensorrt", True), {}, 3.0),
        Speed(EngineOption("int8", "tensorrt", False), {}, None, "The engine cannot be loaded."),
    ]
    _, heads, *rows, _, failed, fastest = describe_speeds(speeds, Path("bundle"))
    assert heads.split() == ["batch", "8", "batch", "32", "one", "image"]
    assert [row.split()[3:] for row in rows] == [
        ["900/s", "-", "1.5", "ms"],
        ["90/s", "100/s", "12.0", "ms"],
        ["-", "-", "3.0", "ms"],
    ]
    assert failed == "not timed   int8 on tensorrt: The engine cannot be loaded."
    assert "--batch 8 --backend tensorrt --precision fp16" in fastest


@pytest.fixture
def bundle(small_bundle_copy: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the shipped bundle with one cheap plan; few plans are tried: these tests look at the command line."""
    monkeypatch.setattr("diffood.calibration.tune.list_plans", lambda _: PLANS)
    monkeypatch.setattr("diffood.calibration.tuning.timing.BATCHES", (2, 4))
    monkeypatch.setattr("diffood.calibration.tuning.timing.FEWEST_TIMED", 8)
    manifest = open_bundle(small_bundle_copy).manifest
    cheap = manifest.model_copy(update={"plans": {"plain": CHEAP.plain}, "default_plan": "plain"})
    write_record(small_bundle_copy, MANIFEST, cheap)
    return small_bundle_copy


def test_tune_prints_the_front_writes_the_plan_and_draws(
    run: Run, bundle: Path, clothes_folder: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "new" / "tuning.png"
    done = run("tune", bundle, "--ind", clothes_folder, "--budget", 2, "--output", picture, *FAST)
    assert done.code == 0, done
    assert "40 of 80 in-distribution files: 20 fit, 20 measure" in done.out
    assert "made: upside-down 4, made: shuffled 4, made: noisy 4, made: blended 4" in done.out
    assert "real ones, given with --ood, say more" in done.out
    rows = [line.split()[0] for line in done.out.splitlines() if " ddim " in line and "%" not in line]
    assert {"chosen", "plain"} <= set(rows)
    assert "is optimistic: it selected this plan from 3 candidates" in done.out
    assert f"next        diffood calibrate {bundle} --images DIR" in done.out
    assert f"serve-batch {bundle} INPUT" in done.out
    opened = open_bundle(bundle)
    assert opened.manifest.default_plan == "tuned"
    assert opened.plan() in PLANS
    assert len(load_tuned(opened)) == 40
    with Image.open(picture) as image:
        assert image.width > 1000


def test_a_latency_says_on_what_it_was_measured(run: Run, bundle: Path, clothes_folder: Path) -> None:
    done = run("tune", bundle, "--ind", clothes_folder, "--latency", 1e6, *FAST)
    assert done.code == 0, done
    assert "one at a time, fp32 on onnxruntime-cpu (`diffood verify` let no faster one pass)" in done.out


def test_tune_then_calibrate_keeps_them_apart(
    run: Run, bundle: Path, clothes_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffood.calibration.tune.list_plans", lambda _: PLANS[-1:])  # of one witness: nothing to fit
    unpack_set("digits", tmp_path / "digits", 10)
    done = run(
        "tune",
        bundle,
        "--ind",
        clothes_folder,
        "--ood",
        f"digits={tmp_path / 'digits'}",
        "--latency",
        1e6,
        *FAST,
        "--json",
    )
    assert done.code == 0, done
    assert done.content["made"] is False
    assert done.content["limit"] == {"kind": "milliseconds", "most": 1e6}
    assert done.content["latency_engine"]["precision"] == "fp32"
    assert list(done.content["chosen"]["auroc"]) == ["digits"]
    assert {speed["engine"]["precision"] for speed in done.content["speeds"]} == {"fp32"}

    refused = run("calibrate", bundle, "--images", clothes_folder, "--batch", 16, "--threads", 1)
    refused.assert_one_line(1, "40 of these 80 images", "`diffood tune`", "40 others are left", "at least 19")
    unpack_set("fashion-test", tmp_path / "more", 20)
    fine = run(
        "calibrate", bundle, "--images", clothes_folder, "--images", tmp_path / "more", "--batch", 16, "--threads", 1
    )
    assert fine.code == 0, fine
    assert "tuned on    40 of the images by `diffood tune`: not used for the threshold" in fine.out
    assert "images      60 scored" in fine.out


def test_a_paper_score_below_chance_is_told_and_left_out(
    run: Run, bundle: Path, clothes_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffood.calibration.tune.list_plans", lambda _: [*PLANS, CHEAP.changed(NO_JUMP)])
    clothes = load_set("fashion-test").images[:300]
    jumps = Detector.load(open_bundle(bundle), PLANS[-1], batch=16, threads=1).score(clothes).score
    calm = tmp_path / "calm"  # images that jump less than in-distribution ones do
    calm.mkdir()
    for index in np.argsort(jumps)[:40]:
        Image.fromarray(clothes[index]).save(calm / f"{index}.png")
    other = Path(shutil.copytree(bundle, tmp_path / "other"))
    words = ("--ind", clothes_folder, "--ood", f"calm={calm}", "--budget", 2, "--batch", 16, "--threads", 1)
    done = run("tune", bundle, *words, "--images", 80)
    assert done.code == 0, done
    said = (
        r"the paper's score alone is below chance on these images in 1 of 1 ways to denoise: mean AUROC at most \d+\."
    )
    assert re.search(rf"^jump        {said}.* The 3 plans that use it there are left out$", done.out, re.MULTILINE)
    assert open_bundle(bundle).plan() == CHEAP.changed(NO_JUMP)

    monkeypatch.setattr("diffood.calibration.tune.list_plans", lambda _: PLANS)
    content = run("tune", other, *words, "--images", 80, "--json").content
    assert (content["below_chance"]["ways"], content["below_chance"]["plans_left_out"]) == (1, 3)
    assert open_bundle(other).plan() in PLANS  # no other is within the limit


def test_a_limit_below_every_plan_is_explained(run: Run, bundle: Path, clothes_folder: Path) -> None:
    run("tune", bundle, "--ind", clothes_folder, "--budget", 0.5).assert_wrong_usage("the cheapest there is costs 1")


def test_too_few_images_and_broken_ones(
    run: Run, bundle: Path, clothes_folder: Path, folders: Path, tmp_path: Path
) -> None:
    run("tune", bundle, "--ind", folders / "ind", "--budget", 1).assert_one_line(1, "10 usable", "at least 40")
    images = Path(shutil.copytree(clothes_folder, tmp_path / "images"))
    (images / "text.png").write_text("not an image")
    Image.new("RGB", (64, 48)).save(images / "large.png")
    done = run("tune", bundle, "--ind", images, "--budget", 1, "--images", 81, "--batch", 16, "--threads", 1, "--json")
    assert done.code == 3, done
    assert "set aside   'text.png'" in done.err
    assert json.loads(done.out)["set_aside"][0][0] == "text.png"
    assert json.loads(done.out)["conversions"]["ind"]["RGB to grey"] == 1
