"""`serve-batch` at another threshold than the calibrated one: what it flags, what it promises, what resumes."""

import json
from collections.abc import Callable
from pathlib import Path

from command_line import Done

from diffood import Detector

MACHINE = ("--batch", "8", "--threads", "1")
FAST = (*MACHINE, "--plan", "plain", "--start-time", "120", "--stride", "120", "--repeats", "1", "--guidance", "0")


def test_a_rate_or_a_threshold_is_chosen_when_serving(
    run: Callable[..., Done], calibrated: Path, folders: Path, tmp_path: Path
) -> None:
    rows: dict[str, Path] = {}

    def serve(name: str, *words: object) -> Done:
        rows[name] = tmp_path / f"{name}.jsonl"
        return run("serve-batch", calibrated, folders / "ind", "--output", rows[name], *words)

    plain = serve("plain", "--json").content
    assert plain["promise"]["kind"] == "pac"
    chosen = serve("fpr", "--fpr", "0.25", "--json").content["promise"]
    assert (chosen["kind"], chosen["fpr"]) == ("every threshold", 0.25)
    assert plain["promise"]["threshold"] > chosen["threshold"]
    assert chosen["bound"] <= 0.25
    done = serve("threshold", "--threshold", chosen["threshold"])
    assert "guarantee   With 95.0% confidence for every threshold at once, at most " in done.out
    both = [[json.loads(line) for line in rows[name].read_text().splitlines()] for name in ("fpr", "threshold")]
    assert both[0] == both[1]
    assert {row["threshold"] for row in both[0]} == {chosen["threshold"]}
    assert all(row["is_ood"] == (row["score"] > chosen["threshold"]) for row in both[0])
    with Detector.open(calibrated, fpr=0.25) as detector:
        assert detector.certificate.bound == chosen["bound"]
        assert detector.predict(folders / "ind").threshold.tolist() == [chosen["threshold"]] * len(both[0])

    run(
        "serve-batch", calibrated, folders / "ind", "--output", rows["fpr"], "--fpr", "0.2", "--resume"
    ).assert_one_line(2, "fpr: 0.25 there, 0.2 here")
    assert run("monitor", rows["fpr"], "--bundle", calibrated).code in (0, 4)
    serve("few", "--fpr", "0.001").assert_one_line(1, "no threshold keeps it", "calibrate on more images")
    serve("two", "--fpr", "0.1", "--threshold", "3").assert_wrong_usage("give one of them")


def test_examples_bound_detection_and_say_what_a_share_takes(
    run: Callable[..., Done], small_bundle_copy: Path, clothes_folder: Path, folders: Path
) -> None:
    calibrate = ("calibrate", small_bundle_copy, "--images", clothes_folder, "--fpr", "0.2", "--overwrite", *FAST)
    done = run(*calibrate, "--ood-examples", folders / "digits", "--detect", "0.99")
    assert done.code == 0, done
    assert "detection   With 95.0% confidence, at least " in done.out
    assert "asked for   99% of OOD images like these: not shown; " in done.out
    content = run(*calibrate, "--ood-examples", folders / "digits", "--detect", "0.01", "--json").content
    assert content["goal"]["holds"] == (content["detection"]["bound"] >= 0.01)
    assert "detection   With 95.0% confidence, at least " in run("inspect", small_bundle_copy).out
    with Detector.open(small_bundle_copy, batch=8, threads=1) as detector:
        found = detector.certificate.detection
    assert found is not None
    assert (found.images, found.bound) == (content["detection"]["images"], content["detection"]["bound"])
    run(*calibrate, "--detect", "0.9").assert_wrong_usage("--detect asks", "give examples with --ood-examples")
    run(*calibrate, "--ood-examples", folders / "digits", "--detect", "2").assert_wrong_usage("--detect is 2.0")
