"""An output among the inputs is refused, however it is written; what a run would never find is not."""

from pathlib import Path

import pytest

from diffood.errors import UsageError
from diffood.runtime.inputs.outputs import refuse_outputs_inside


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of images and a link to it, in the working directory."""
    (tmp_path / "cam" / "day").mkdir(parents=True)
    (tmp_path / "list.csv").touch()
    (tmp_path / "link").symlink_to("cam")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "cam" / "out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "far").symlink_to(tmp_path / "far")
    (tmp_path / "far").mkdir()
    (tmp_path / "cam" / "day" / "later").symlink_to(tmp_path / "planned")  # which is not there yet
    (tmp_path / "cam" / "a.png").symlink_to(tmp_path / "one-file.jsonl")
    (tmp_path / "cam" / "day" / "up").symlink_to(tmp_path)  # not followed
    (tmp_path / "cam.tar").touch()
    monkeypatch.chdir(tmp_path)


def test_an_output_among_the_inputs_is_refused(subtests: pytest.Subtests) -> None:
    for name, output in [
        ("cam", "cam/rows.jsonl"),
        ("cam", "link/rows.jsonl"),
        ("link", "cam/new/deep/rows"),
        ("cam", "cam"),
        ("cam/day/..", "cam/rows"),
        (".", "rows.jsonl"),
        ("cam/*", "cam/rows.jsonl"),
        ("cam/*", "cam/day/rows.jsonl"),
        ("**/*.parquet", "cam/day/rows.parquet"),
        ("link/*", "link/rows.jsonl"),
        ("cam", "cam/out/rows.jsonl"),
        ("cam.tar", "cam.tar"),
        ("@list.csv", "list.csv"),
        ("cam", "elsewhere/rows.jsonl"),
        ("cam", "elsewhere"),
        ("cam", "elsewhere/deep/rows"),
        ("cam", "planned/rows"),
        ("cam", "one-file.jsonl"),
        ("cam", "far/rows.jsonl"),
        ("li*", "cam/rows.jsonl"),
        ("ca*", "elsewhere/rows.jsonl"),
        ("file://{here}/cam", "cam/rows.jsonl"),
        ("local://{here}/cam", "elsewhere/rows.jsonl"),
    ]:
        with (
            subtests.test(name=name, output=output),
            pytest.raises(UsageError, match=r"--log .* is among the inputs"),
        ):
            refuse_outputs_inside(["other", name.format(here=Path.cwd())], {"--output": None, "--log": Path(output)})


def test_an_output_elsewhere_is_not(subtests: pytest.Subtests) -> None:
    for name, output in [
        ("cam/day", "cam/rows.jsonl"),
        ("cam", "rows.jsonl"),
        ("cam", "elsewhere/.hidden/rows.jsonl"),
        ("cam/**/*.png", "cam/rows.jsonl"),
        ("cam", "camera/rows.jsonl"),
        ("cam", "cam/.rows.jsonl"),
        ("cam", "cam/.out/rows.jsonl"),
        ("cam/*.png", "cam/rows.jsonl"),
        ("cam.tar", "rows.jsonl"),
        ("https://host/cam", "rows.jsonl"),
        ("-", "rows.jsonl"),
    ]:
        with subtests.test(name=name, output=output):
            refuse_outputs_inside([name], {"--output": Path(output)})
