"""What the demo says: ten lines of at most eighty columns, and commands that can be copied."""

import shlex
from pathlib import Path

import pytest

from diffood.errors import UsageError
from diffood.zoo import demo
from diffood.zoo.demo import MARKER, OOD_SETS, WIDTH, DemoResult, describe_result, run_demo, wrap_command

GUARANTEE = (
    "With 95.0% confidence, at most 4.91% of in-distribution images like these 466 are flagged (asked for: 5.00%)."
)


def test_the_result_holds_every_fact_in_ten_lines_of_eighty_columns() -> None:
    result = DemoResult(
        auroc=dict.fromkeys(OOD_SETS, 1.0),
        mean_auroc=0.9947,
        false_alarms={"rate": 0.015, "count": 400, "interval": [0.0055, 0.0324]},
        sets={name: {"detection_rate": 0.8 if name == "upside-down" else 1.0} for name in OOD_SETS},
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
        "1.5% of 400",
        "0.5% to 3.2%",
        GUARANTEE,
        *OOD_SETS,
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
    def begin(_images: Path) -> None:
        raise _Begun

    monkeypatch.setattr(demo, "_unpack", begin)
    for name in LEFT:
        (tmp_path / name).touch()
    with pytest.raises(UsageError, match="neither an empty folder nor an earlier demo's"):
        run_demo(tmp_path, print)  # nothing says that a demo made it
    for stranger in ("thesis.txt", "bundles", "verdicts.csv"):
        (tmp_path / MARKER).touch()
        (tmp_path / stranger).touch()
        with pytest.raises(UsageError, match="neither an empty folder"):
            run_demo(tmp_path, print)
        (tmp_path / stranger).unlink()
    with pytest.raises(_Begun):
        run_demo(tmp_path, print)
    assert [entry.name for entry in tmp_path.iterdir()] == [MARKER]


def test_a_long_command_is_wrapped_into_one_that_means_the_same() -> None:
    words = ["diffood", "evaluate", "a folder", "--ind", "x" * 60, "--ood", "digits=" + "y" * 40, "--json"]
    wrapped = wrap_command(words)
    assert shlex.split("\n".join(wrapped).removeprefix("$ ").replace("\\\n", "")) == words
    assert max(map(len, wrapped)) <= WIDTH
