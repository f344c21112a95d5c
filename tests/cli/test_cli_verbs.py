"""What each verb of the command line prints, writes and exits with when it can do its work."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from planted_engine import plant_engine

from diffood import __version__
from diffood.cli import app
from diffood.runtime.bundle.bundle import Bundle, open_bundle

MACHINE = ("--batch", "8", "--threads", "1")
# One UNet evaluation an image: these tests look at the command line, not at detection.
FAST = (*MACHINE, "--plan", "plain", "--start-time", "120", "--stride", "120", "--repeats", "1", "--guidance", "0")
Run = Callable[..., Any]  # gives conftest.Done


def test_help_groups_every_verb_and_each_shows_an_example(run: Run) -> None:
    done = run("--help")
    assert done.code == 0
    verbs = done.out.partition("Start here:")[2]
    assert "..." not in verbs  # what a verb is for is not cut off
    listed = re.findall(r"^  ([a-z-]+)  ", verbs, re.MULTILINE)
    assert sorted(listed) == sorted(command.name or command.callback.__name__ for command in app.registered_commands)
    for verb in listed:
        shown = run(verb, "--help")
        assert shown.code == 0, verb
        assert f"Example: diffood {verb}" in " ".join(shown.out.split())


def test_help_puts_options_under_their_panels(run: Run) -> None:
    shown = run("calibrate", "--help").out
    places = [
        shown.index(part) for part in ("Options:\n", "--images INPUT", "Plan:\n", "--stride", "Machine:\n", "--threads")
    ]
    assert places == sorted(places)


def test_version(run: Run) -> None:
    done = run("--version")
    assert (done.code, done.out.split()) == (0, ["diffood", __version__])


def test_calibrate_prints_json(run: Run, small_bundle_copy: Path, clothes_folder: Path) -> None:
    done = run("calibrate", small_bundle_copy, "--images", clothes_folder, "--fpr", "0.1", *FAST, "--json")
    assert (done.code, done.err) == (0, "")
    assert (done.content["n"], done.content["alpha"], done.content["method"]) == (80, 0.1, "pac")
    assert done.content["delta"] == pytest.approx(0.05)
    stored = json.loads((small_bundle_copy / "calibration.json").read_text())
    assert len(stored.pop("scores")) == len(set(stored.pop("images"))) == 80
    assert len(stored.pop("content_sha256")) == 64  # of the file alone
    content = done.content
    shares = [row["share"] for row in content.pop("contamination")]
    suspects = content.pop("most_suspicious")
    assert content.pop("tuned") == 0
    assert content.pop("conversions") == {}
    assert (content.pop("replaced"), content.pop("trained"), content.pop("goal")) == (None, 0, None)
    assert sum(content.pop("predictions")["by_class"]) == 80
    assert stored == content
    assert shares == [0.05]  # one in a hundred of 80 is no image
    assert len(suspects) == 5
    assert all((clothes_folder / suspect["id"]).is_file() for suspect in suspects)


def test_calibrate_has_other_methods(run: Run, small_bundle_copy: Path, clothes_folder: Path) -> None:
    for method in ("conformal", "quantile"):
        done = run(
            "calibrate",
            small_bundle_copy,
            "--images",
            clothes_folder,
            "--method",
            method,
            "--overwrite",
            *FAST,
            "--json",
        )
        assert (done.code, done.content["method"], done.content["delta"]) == (0, method, None)


def test_calibrate_sets_broken_files_aside(
    run: Run, small_bundle_copy: Path, clothes_folder: Path, folders: Path
) -> None:
    images = ("--images", clothes_folder, "--images", folders / "broken")
    done = run("calibrate", small_bundle_copy, *images, *FAST, "--json")
    assert done.code == 3
    assert (done.content["n"], done.content["set_aside"]) == (81, 2)
    assert "broken/text.png" in done.err
    assert "\x1b" not in done.err
    assert "warning" not in done.err


def test_calibrate_warns_of_repeated_files(
    run: Run, small_bundle_copy: Path, clothes_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(clothes_folder, tmp_path / "images")
    shutil.copy(clothes_folder / "0000.png", tmp_path / "images" / "again.png")
    done = run("calibrate", small_bundle_copy, "--images", tmp_path / "images", *FAST)
    assert done.code == 0
    assert "warning     1 file repeats another's bytes" in done.err


def test_evaluate_reports_every_set(run: Run, calibrated: Path, folders: Path, tmp_path: Path) -> None:
    words: tuple[object, ...] = (
        "evaluate",
        calibrated,
        "--ind",
        folders / "ind",
        "--ood",
        f"digits={folders / 'digits'}",
    )
    words += ("--ood", f"textures={folders / 'textures'}", "--output", tmp_path / "new" / "report", *MACHINE)
    done = run(*words, "--json")
    assert (done.code, done.err) == (0, "")
    content = done.content
    assert content["auroc"].keys() == content["sets"].keys() == {"digits", "textures"}
    assert all(0 <= value <= 1 for value in content["auroc"].values())
    assert content["mean_auroc"] == pytest.approx(sum(content["auroc"].values()) / 2)
    assert content["false_alarms"]["count"] == 10
    assert content["set_aside"] == {"ind": 0, "digits": 0, "textures": 0}
    assert content["unet_evaluations_per_image"] == 1
    assert json.loads((tmp_path / "new" / "report" / "evaluation.json").read_text()) == content
    assert (tmp_path / "new" / "report" / "scores.png").read_bytes().startswith(b"\x89PNG")
    shown = run(*words)
    assert shown.code == 0
    assert re.search(r"^digits +10 ", shown.out, re.MULTILINE)
    assert "of 10 fresh in-distribution images" in shown.out


def test_evaluate_sets_broken_files_aside(run: Run, calibrated: Path, folders: Path) -> None:
    words = ("evaluate", calibrated, "--ind", folders / "ind", "--ood", f"some={folders / 'broken'}", *MACHINE)
    assert (run(*words, "--json").code, run(*words).code) == (3, 3)
    done = run(*words)
    assert "set aside: 2 of some" in done.out
    assert "set aside   'some: text.png': The file is not an image" in done.err
    assert done.err.count("set aside") == 2


def test_serve_batch_writes_a_row_for_every_file(run: Run, calibrated: Path, folders: Path, tmp_path: Path) -> None:
    for ending in (".jsonl", ".csv", ".parquet"):
        output = tmp_path / f"rows{ending}"
        done = run("serve-batch", calibrated, folders / "ind", folders / "digits", "--output", output, *MACHINE)
        assert (done.code, done.err) == (0, "")
        assert done.out.startswith("20 files: 20 scored, ")
        assert f"wrote       {output}" in done.out
        assert output.stat().st_size > 0


def test_serve_batch_sets_broken_files_aside(run: Run, calibrated: Path, folders: Path, tmp_path: Path) -> None:
    output = tmp_path / "rows.csv"
    done = run("serve-batch", calibrated, folders / "broken", "--output", output, *MACHINE, "--json")
    assert (done.code, done.err) == (3, "")
    content = done.content
    assert (content["files"], content["scored"], content["rejected"], content["invalid"]) == (3, 1, 2, 0)
    assert sum(content["reasons"].values()) == 2
    with output.open(newline="") as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["ok", "rejected", "rejected"]
    shown = run("serve-batch", calibrated, folders / "broken", "--output", output, *MACHINE)
    assert shown.code == 3
    assert "2 set aside" in shown.out
    assert "set aside   1 x The file is empty" in shown.out
    assert r"            'a\x1b[31m.png'" in shown.out
    assert "            'text.png'\n" in shown.out
    assert content["examples"].keys() == content["reasons"].keys()


def test_serve_batch_names_the_first_files_with_a_reason_and_counts_what_has_no_row(
    run: Run, calibrated: Path, folders: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "0.png").write_bytes(next((folders / "ind").iterdir()).read_bytes())
    for name in ("0.json", "0.cls", ".hidden.png", *(f"{letter}.png" for letter in "abcde")):
        (images / name).touch()
    for form in (images, images / "*"):
        done = run("serve-batch", calibrated, form, "--output", tmp_path / "rows.csv", *MACHINE, "--overwrite")
        assert done.code == 3
        assert "set aside   5 x The file is empty" in done.out
        assert "a.png', " in done.out
        assert "c.png', …\n" in done.out
        hidden = ", 1 hidden file" if form == images else ""  # a pattern does not match it
        assert f"left out    2 labels of images{hidden}: they have no rows" in done.out


def test_serve_batch_says_that_rows_come_by_class_and_shuffles_them(
    run: Run, calibrated: Path, folders: Path, tmp_path: Path
) -> None:
    names = open_bundle(calibrated).manifest.class_names[1:3]
    for name in names:
        shutil.copytree(folders / "ind", tmp_path / "images" / name)
    words = ("serve-batch", calibrated, tmp_path / "images", *MACHINE, "--output")
    done = run(*words, tmp_path / "sorted.jsonl")
    assert "order       rows come class by class" in done.out
    again = [run(*words, tmp_path / f"{number}.jsonl", "--shuffle") for number in range(2)]
    assert [(each.code, "order  " in each.out) for each in again] == [(0, False)] * 2
    rows = [(tmp_path / name).read_text().splitlines() for name in ("sorted.jsonl", "0.jsonl", "1.jsonl")]
    assert rows[1] == rows[2] != rows[0]
    assert sorted(rows[1]) == sorted(rows[0])


def test_serve_batch_shows_the_commonest_reasons_only(run: Run, calibrated: Path, tmp_path: Path) -> None:
    (tmp_path / "garbage").mkdir()
    for index in range(30):  # a reason holds the first bytes of its file, so that each is another
        (tmp_path / "garbage" / f"{index:02d}").write_bytes(f"{index:02d}".encode())
    done = run("serve-batch", calibrated, tmp_path / "garbage", "--output", tmp_path / "rows.jsonl", *MACHINE)
    assert done.code == 3
    assert done.out.count("set aside   1 x") == 20
    assert "for 10 more reasons" in done.out


def test_limits_of_serve_batch_refuse_files(run: Run, calibrated: Path, folders: Path, tmp_path: Path) -> None:
    words = ("serve-batch", calibrated, folders / "ind", "--output", tmp_path / "rows.jsonl", *MACHINE, "--json")
    assert run(*words, "--max-pixels", 783).content["rejected"] == 10
    assert run(*words, "--max-bytes", 10).content["rejected"] == 10
    assert run(*words, "--max-pixels", 784).content["rejected"] == 0


def test_inspect_shows_a_bundle_with_and_without_calibration(run: Run, calibrated: Path, small_bundle: Bundle) -> None:
    bare, full = run("inspect", small_bundle.path), run("inspect", calibrated)
    assert (bare.code, full.code) == (0, 0)
    assert "calibrated  no; run `diffood calibrate" in bare.out
    assert "calibrated  pac, 64 images" in full.out
    assert run("inspect", small_bundle.path, "--json").content["calibration"] is None
    content = run("inspect", calibrated, "--json").content
    assert content["calibration"]["n"] == 64
    assert "scores" not in content["calibration"]
    assert content["manifest"]["format"] == 3
    assert f"verified    nothing; run `diffood verify {calibrated}" in full.out
    assert "serves      fp32 on onnxruntime-cpu" in full.out
    assert (content["serves"]["by_default"], content["engines"]) == ("fp32 on onnxruntime-cpu", {})


def test_inspect_shows_engines_and_checks_their_hashes(run: Run, small_bundle_copy: Path) -> None:
    folder = plant_engine(small_bundle_copy)
    done = run("inspect", small_bundle_copy)
    assert done.code == 0, done
    [line] = [line for line in done.out.splitlines() if line.startswith("engine ")]
    for word in ("tensorrt-rtx-sm86-fp32-default: tensorrt-rtx 1.7.1", "capability 8.6", "1 to 64 images (best 16)"):
        assert word in line
    record = run("inspect", small_bundle_copy, "--json").content["engines"]["tensorrt-rtx-sm86-fp32-default"]
    assert record["profile"] == {"smallest": 1, "usual": 16, "largest": 64}
    next(folder.glob("*.plan")).write_bytes(b"another")
    run("inspect", small_bundle_copy).assert_one_line(1, "was changed after it was built")


def test_inspect_lists_the_detector_files_and_checks_their_hashes(
    run: Run, calibrated: Path, small_bundle_copy: Path, tmp_path: Path
) -> None:
    none = run("inspect", small_bundle_copy)
    assert f"detector    none; `diffood export --bundle {small_bundle_copy}` writes detector.onnx" in none.out
    assert run("inspect", small_bundle_copy, "--json").content["detectors"] is None
    written = run("export", "--bundle", small_bundle_copy)
    assert (written.code, written.err) == (0, "")
    assert "detectors   detector.onnx" in written.out
    assert "detector    detector.onnx: fp32, plan default, 2" in (before := run("inspect", small_bundle_copy).out)
    assert "gives witnesses, no verdicts" in before
    copy = Path(shutil.copytree(calibrated, tmp_path / "calibrated"))
    assert "gives verdicts" in run("inspect", copy).out
    (entry,) = run("inspect", copy, "--json").content["detectors"]["files"]
    assert (entry["file"], entry["calibrated"]) == ("detector.onnx", True)
    (copy / "calibration.json").unlink()
    assert "gives verdicts; it has the calibration" in run("inspect", copy).out
    with (small_bundle_copy / "detector.onnx").open("r+b") as file:
        file.write(b"another")
    run("inspect", small_bundle_copy).assert_one_line(1, "detector.onnx was changed after it was written")


def test_export_triton_writes_a_model_repository(run: Run, calibrated: Path, tmp_path: Path) -> None:
    repository = tmp_path / "new" / "models"
    done = run("export-triton", calibrated, "--output", repository, "--name", "clothes", "--queue-delay", 0, *MACHINE)
    assert (done.code, done.err) == (0, "")
    assert f"wrote       {repository / 'clothes'}" in done.out
    config = (repository / "clothes" / "config.pbtxt").read_text().splitlines()
    expected = ['backend: "onnxruntime"', "max_batch_size: 8", "dynamic_batching { max_queue_delay_microseconds: 0 }"]
    assert {'name: "clothes"', *expected} < set(config)
    model = repository / "clothes" / "1" / "model.onnx"
    assert model.read_bytes() == (calibrated / "detector.onnx").read_bytes()
    again = run("export-triton", calibrated, "--output", repository)
    again.assert_wrong_usage("is not an empty folder; choose another --output")


def test_export_triton_has_images_decoded_on_the_server_where_asked(run: Run, calibrated: Path, tmp_path: Path) -> None:
    repository = tmp_path / "models"
    done = run("export-triton", calibrated, "--output", repository, "--decode-images", "--max-bytes", 9999, *MACHINE)
    assert (done.code, done.err) == (0, "")
    assert "where diffood is installed" in done.out
    assert 'backend: "python"' in (repository / "diffood" / "config.pbtxt").read_text().splitlines()
    assert (repository / "diffood" / "1" / "bundle" / "calibration.json").is_file()
    limits = run("export-triton", calibrated, "--output", tmp_path / "other", "--max-bytes", 9999)
    limits.assert_wrong_usage("--max-pixels and --max-bytes go with --decode-images")
    engine = run("export-triton", calibrated, "--output", tmp_path / "other", "--decode-images", "--engine", "m.plan")
    engine.assert_wrong_usage("--engine is for Triton's TensorRT backend")
    assert not (tmp_path / "other").exists()
