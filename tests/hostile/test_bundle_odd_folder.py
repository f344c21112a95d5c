"""Attack: a bundle's folder holds more than it should, other kinds of files, or names that look like those it knows."""

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from attacks import undone
from cheap_calibration import calibrate_cheaply
from full_bundle import complete

from diffood.calibration.inspection import inspect_bundle
from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import open_bundle

ENGINE = "engines/tensorrt-rtx-sm86-fp32-default"
IGNORED = (
    *("extra.onnx", "classify.onnx.bak", "CLASSIFY.ONNX", "Calibration.json", "PARITY.json", "calibration.json ", " x"),
    *(
        "calibration.json.",
        "calibration.json\u200b",
        "c\u0430libration.json",
        "\uff43alibration.json",
        "manifest.json~",
    ),
    *("calibratio\u0301n.json", "\u202enosj.noitarbilac", "*", "-rf", "a" * 255, "\n", "\udcff.onnx", "NUL", "$(id)"),
    *("Engines/x/engine.json", "engine\u0455/x/engine.json", "Calibrations/x.json", f"{ENGINE}/Engine.json/x", ".x/y"),
)
"""Files that nothing opens."""


@pytest.fixture
def whole(small_bundle_copy: Path, clothes_folder: Path) -> Path:
    """A bundle with every record there can be, one calibration of them kept."""
    bundle = calibrate_cheaply(small_bundle_copy, clothes_folder, 0.3)
    return complete(calibrate_cheaply(bundle, clothes_folder))


def said(path: Path) -> dict[str, object]:
    """All that a bundle says of itself."""
    return inspect_bundle(path).as_json()


def test_files_with_other_names_change_nothing(whole: Path, subtests: pytest.Subtests) -> None:
    before = said(whole)
    for name in IGNORED:
        with subtests.test(name=name), undone(whole):
            path = whole / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"not a record")
            assert said(whole) == before


def test_what_lies_where_records_are_looked_for_is_refused(whole: Path, subtests: pytest.Subtests) -> None:
    (kept,) = (whole / "calibrations").glob("*.json")
    moved = {
        kept.name: f"calibrations/{kept.name.upper()}"[:-4] + "json",
        "another name": "calibrations/0.json",
        "case": f"{ENGINE.upper()}".replace("ENGINES", "engines"),
        "look-alike": ENGINE.replace("fp32", "fp\uff132"),
        "hidden letters": ENGINE + "\u200b",
        "more": ENGINE.replace("default", "fast"),
    }
    for case, name in moved.items():
        with subtests.test(case=case), undone(whole):
            (kept if name.startswith("calibrations") else whole / ENGINE).rename(whole / name)
            with pytest.raises(BundleError) as refused:
                said(whole)
            assert str(refused.value).isprintable()


def listen(path: Path) -> None:
    """Make a socket, whose own limit on names is a hundred characters."""
    with socket.socket(socket.AF_UNIX) as one:
        before = Path.cwd()
        os.chdir(path.parent)
        try:
            one.bind(path.name)
        finally:
            os.chdir(before)


def test_other_kinds_of_files_are_refused(whole: Path, tmp_path: Path, subtests: pytest.Subtests) -> None:
    kinds: dict[str, Callable[[Path, Path], object]] = {
        "link": lambda path, copy: path.symlink_to(copy),
        "link to itself": lambda path, copy: path.symlink_to(path.name),
        "link to a device": lambda path, copy: path.symlink_to("/dev/zero"),
        "pipe": lambda path, copy: os.mkfifo(path),
        "folder": lambda path, copy: path.mkdir(),
        "socket": lambda path, copy: listen(path),
    }
    copy = Path(shutil.copytree(whole, tmp_path / "copy"))
    before = said(whole)
    names = sorted(path.relative_to(whole).as_posix() for path in whole.rglob("*") if path.is_file())
    for number, name in enumerate(names):
        for kind, make in list(kinds.items()) if number < 3 else [list(kinds.items())[number % len(kinds)]]:
            with subtests.test(name=name, kind=kind):
                path = whole / name
                path.unlink()
                make(path, copy / name)
                try:
                    with pytest.raises(BundleError) as refused:
                        said(whole)
                    assert str(refused.value).isprintable()
                finally:
                    path.rmdir() if kind == "folder" else path.unlink()
                    shutil.copy(copy / name, path)
    assert said(whole) == before


def test_paths_that_are_too_long_are_explained(whole: Path, tmp_path: Path) -> None:
    for name in ("a" * 300, "x/" * 2500, "\U0001f600" * 200):
        with pytest.raises(
            BundleError, match=r"is not a bundle: it cannot be opened \(File name too long\)"
        ) as refused:
            open_bundle(name)
        assert len(str(refused.value)) < 300
    before = said(whole)
    deep = tmp_path / "/".join(["d" * 200] * ((3900 - len(str(tmp_path))) // 201))
    deep.mkdir(parents=True)
    moved = Path(shutil.copytree(whole, deep / "bundle"))
    assert said(moved) == before
