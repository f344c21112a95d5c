"""Wrong usage of every verb: exit code 2, one line that names the value, no traceback, and nothing left behind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]  # gives conftest.Done
# By verb: words, and what the line must say. In the folder they are run in, `bundle` is calibrated, `fresh` is not,
# `ind` and `ood` have images, `empty` has none.
CASES: dict[str, list[tuple[str, str]]] = {
    "": [
        ("sreve", "No such command 'sreve'"),
        ("calibrat", "Did you mean 'calibrate'?"),
        ("--verbose", "No such option: --verbose"),
    ],
    "export": [
        ("--precision fp8 --output made", "'fp8' is not one of fp32, fp16, int8"),
        ("", "--classifier and --output make a bundle"),
        ("--unet a --output made", "--classifier is missing"),
        ("--input-size 224px", "'--input-size': '224px' is not a size; give one number, 224, or HxW"),
        ("--input-size 2x2x4", "'2x2x4' is not a size"),
        ("--precision , --output made", "'' is not one of fp32, fp16, int8"),
        ("--mean 0.5;0.5", "'--mean': '0.5;0.5' is not a list of numbers"),
        ("--std ,", "'--std': ',' is not a list of numbers"),
    ],
    "export-triton": [("bundle", "Missing option '--output'"), ("bundle --output empty --batch x", "--batch")],
    "export-web": [
        ("bundle", "Missing option '--output'"),
        ("bundle --output ind", "ind exists and is not an empty folder"),
        ("bundle --output page", "There is no onnxruntime-web in node_modules/onnxruntime-web: get it by `npm install"),
        ("bundle --output page --precision fp8", "'fp8'"),
    ],
    "calibrate": [
        ("", "Missing argument 'BUNDLE'"),
        ("fresh", "--images DIR, or --plan-only"),
        ("fresh --per-class", "--images DIR, or --plan-only"),
        ("fresh --ind nowhere", "No such file or folder: nowhere"),
        ("fresh --images ind --fpr 0", "--fpr is 0.0"),
        ("fresh --images ind --fpr 1", "--fpr is 1.0"),
        ("fresh --images ind --fpr -0.1", "--fpr is -0.1"),
        ("fresh --images ind --fpr nan", "--fpr is nan"),
        ("fresh --images ind --fpr 5%", "--fpr"),
        ("fresh --images ind --confidence 95", "--confidence is 95.0"),
        (
            "fresh --images ind --plan fastest",
            "No plan 'fastest' in this bundle; it has: default",
        ),
        ("fresh --images ind --start-time 100000", "100000"),
        ("fresh --images ind --start-time 0", "0"),
        ("fresh --images ind --start-time 360 --start-time 120", "start times must ascend"),
        ("fresh --images ind --stride 0", "stride"),
        ("fresh --images ind --repeats 0", "repeats"),
        ("fresh --images ind --guidance -1", "guidance"),
        ("fresh --images ind --guidance nan", "guidance"),
        ("fresh --images ind --seed -1", "seed"),
        ("fresh --images ind --sampler euler", "euler"),
        ("fresh --images ind --witnesses jump,colour", "colour"),
        ("fresh --images ind --method bayes", "bayes"),
        ("fresh --images ind --backend cpu", "'cpu'"),
        ("fresh --images ind --batch 0", "0 images"),
        ("fresh --images ind --threads -1", "-1 threads"),
        ("fresh --images ind --colour red", "--colour"),
        ("fresh --images ind --report empty", "empty is a folder"),
        ("fresh --images nowhere", "No such file or folder: nowhere"),
        ("fresh --images ind --n 100", "--n asks"),
        ("fresh --images ind --per-class --method quantile", "'quantile' has none"),
        ("fresh --plan-only --n 0", "0 images cannot be calibrated on"),
        ("fresh --plan-only --n many", "--n"),
        ("fresh --plan-only --fpr 0", "--fpr is 0.0"),
        ("fresh --plan-only --plan fastest", "No plan 'fastest'"),
        ("fresh --plan-only --images nowhere", "No such file or folder: nowhere"),
        ("fresh --plan-only --per-class --method quantile", "'quantile' has none"),
    ],
    "tune": [
        ("fresh --ind ind", "--budget in UNet evaluations or --latency"),
        ("fresh --ind ind --budget 1 --latency 1", "--budget in UNet evaluations or --latency"),
        ("fresh --ind ind --budget 0", "at most 0; give a number above 0"),
        ("fresh --ind ind --latency nan", "nan"),
        ("fresh --ind ind --budget 1 --images 0", "--images"),
        ("fresh --budget 1 --images nowhere", "No such file or folder: nowhere"),
        ("fresh --budget 1 --images 60 --images nowhere", "No such file or folder: nowhere"),
        ("fresh --budget 1 --images 60", "name in-distribution images with --ind INPUT"),
        ("fresh --ind ind --budget 1 --output tuning.doc", "'tuning.doc' does not end in .png"),
        ("fresh --ind ind --budget 1 --output tuning.svg", "'tuning.svg' does not end in .png"),
        ("fresh --ind ind --budget 1 --ood digits", "'digits' is not of the form NAME=DIR"),
        ("fresh --ind ind --budget 1 --ood fit=ood", "An OOD set cannot be named 'fit'"),
    ],
    "evaluate": [
        ("bundle --ood digits=ood", "Missing option '--ind'"),
        ("bundle --images nowhere", "No such file or folder: nowhere"),
        ("bundle --ind ind --output ind/made", "--output ind/made is among the inputs (ind)"),
        ("bundle --ind ind --ood x=ood --report ood/made.html", "--report ood/made.html is among the inputs (ood)"),
        ("bundle --images ind --ind nowhere", "No such file or folder: nowhere"),
        ("bundle --ind ood/text.png", "The first of 1 that cannot be used is 'ood/text.png': The file is not an image"),
        ("bundle --ind ind --ood digits", "'--ood': 'digits' is not of the form NAME=DIR"),
        ("bundle --ind ind --near digits=", "'--near': 'digits=' is not"),
        ("bundle --ind ind --far =ood", "'--far': '=ood' is not"),
        ("bundle --ind ind --ood ind=ood", "the name 'ind'"),
        ("bundle --ind ind --ood \x1b[31m=ood", "control characters"),
        ("bundle --ind ind --ood digits=nowhere", "No such file or folder: nowhere"),
        ("bundle --ind ind --near x=ood --far x=ood", "Two OOD sets are named 'x'"),
        ("bundle --ind ind --ood x=ood --ood x=ind", "Two OOD sets are named 'x'"),
        ("bundle --ind ind --ood x=ood/text.png", "No usable image in the x set; 1 file"),
        ("bundle --ind empty --ood x=ood", "No files in empty"),
        ("bundle --ind ind --ood x=ood --report empty", "empty is a folder"),
    ],
    "report": [
        ("bundle --ind ind", "Missing option '--output'"),
        ("bundle --ind ind --output empty", "is a folder"),
        ("bundle --ind ind --output ind/made.html", "--output ind/made.html is among the inputs"),
        ("bundle --images nowhere --output made.html", "No such file or folder: nowhere"),
    ],
    "verify": [
        ("bundle --precision fp8", "'fp8' is not one of fp32, fp16, int8"),
        ("bundle --precision fp16", "no fp16 graphs"),
        ("bundle --ood digits", "is not of the form NAME=DIR"),
        ("bundle --max-flips 2", "--max-flips"),
        ("bundle --ind nowhere", "No such file or folder: nowhere"),
    ],
    "bench": [
        ("bundle --precision fp8", "'fp8' is not one of"),
        ("bundle --output bench.pdf", "'bench.pdf' does not end in .png"),
        ("bundle --rounds 0", "--rounds"),
        ("bundle --plan fastest", "No plan 'fastest'"),
    ],
    "serve-batch": [
        ("bundle ind", "Missing option '--output'"),
        ("bundle ind --output rows.jsonl --resume --overwrite", "give one of them"),
        ("bundle --output rows.jsonl", "INPUT"),
        ("bundle nowhere --output rows.jsonl", "No such file or folder: nowhere"),
        ("bundle ind --output ind/rows.jsonl", "--output ind/rows.jsonl is among the inputs (ind)"),
        ("bundle ind --output ind/deep/../rows", "--output ind/deep/../rows is among the inputs (ind)"),
        ("bundle ind --output rows.jsonl --save-flagged ind/kept", "--save-flagged ind/kept is among the inputs"),
        (
            "bundle --watch ind --output rows.jsonl --save-flagged ind/kept",
            "--save-flagged ind/kept is among the inputs",
        ),
        ("bundle --watch ind --output rows.jsonl --log ind/log.jsonl", "--log ind/log.jsonl is among the inputs"),
        ("bundle . --output rows.jsonl", "--output rows.jsonl is among the inputs (.)"),
        ("bundle **/* --output ind/rows.jsonl", "--output ind/rows.jsonl is among the inputs (**/*)"),
        ("bundle i*d --output ind/rows.jsonl", "--output ind/rows.jsonl is among the inputs (i*d)"),
        ("bundle rows.parquet --output rows.parquet --overwrite", "is among the inputs (rows.parquet)"),
        ("bundle @rows.csv --output rows.csv --overwrite", "is among the inputs (@rows.csv)"),
        (f"bundle {'x' * 5000} --output rows.jsonl", "No such file or folder"),
        ("bundle empty --output rows.jsonl", "No files in empty"),
        ("bundle @nowhere --output rows.jsonl", "The list nowhere cannot be read"),
        ("bundle *.png --output rows.jsonl", "matches no file"),
        ("bundle ind --output rows.txt", "no known ending"),
        ("bundle ind --output rows.jsonl --max-pixels 0", "--max-pixels"),
        ("bundle ind --output rows.jsonl --batch 5000", "A batch of 5000 images"),
    ],
    "monitor": [
        ("--bundle bundle", "ROWS"),
        ("rows.csv", "Missing option '--bundle'"),
        ("absent.jsonl --bundle bundle", "No such file: absent.jsonl"),
        ("rows.txt --bundle bundle", "no known ending"),
        ("bad.jsonl --bundle bundle", "bad.jsonl, line 1 is invalid: it is not JSON"),
        ("rows.csv --bundle bundle --follow", "cannot be followed"),
        ("bad.jsonl --bundle bundle --level 0", "--level is 0.0"),
        ("bad.jsonl --bundle bundle --level 1", "--level is 1.0"),
        ("bad.jsonl --bundle bundle --follow --interval -1", "The interval is -1.0"),
        ("bad.jsonl --bundle bundle --follow --interval nan", "The interval is nan"),
        ("bad.jsonl --bundle bundle --follow --interval inf", "The interval is inf"),
        ("bad.jsonl --bundle bundle --output drift.txt", "does not end in .png"),
    ],
    "inspect": [("", "Missing argument 'BUNDLE'"), ("a b", "unexpected extra argument")],
    "doctor": [("bundle", "unexpected extra argument")],
    "demo": [("--output file", "give --output a new one"), ("--output mine", "give --output a new one")],
}


@pytest.fixture
def here(
    calibrated: Path, small_bundle_copy: Path, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The folder the words are run in."""
    root = tmp_path / "here"
    (root / "empty").mkdir(parents=True)
    (root / "mine").mkdir()
    (root / "mine" / "thesis.tex").touch()
    for name, target in {"bundle": calibrated, "ind": folders / "ind", "ood": folders / "broken"}.items():
        (root / name).symlink_to(target)
    small_bundle_copy.rename(root / "fresh")
    for name in ("rows.txt", "rows.csv", "file"):
        (root / name).touch()
    (root / "bad.jsonl").write_text("not JSON\n")
    monkeypatch.chdir(root)
    return root


def test_wrong_usage_is_one_line_and_leaves_nothing(run: Run, here: Path, subtests: pytest.Subtests) -> None:
    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}

    before = files()
    for verb, cases in CASES.items():
        for words, said in cases:
            with subtests.test(f"{verb} {words}"):
                done = run(*filter(None, [verb]), *words.split())
                done.assert_wrong_usage(said)
                assert "Value error" not in done.err
                assert files() == before
