"""How many items there are, told without reading one: as many as the inputs give, or not known."""

import shutil
import time
from pathlib import Path

import pytest

from diffood.runtime.inputs.counting import count_in_background, count_items
from diffood.runtime.inputs.open import open_inputs
from diffood.runtime.inputs.reading import ReadOptions


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with images in two folders, one of them deep, a hidden file and a list."""
    monkeypatch.chdir(tmp_path)
    for name in ("a/1.png", "a/deep/2.png", "a/deep/3.png", "a/.hidden", "b/4.png", "5.png", "6.jpg"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"x")
    Path("list.txt").write_text("a/1.png\n\nb/4.png\nmissing.png\n")
    return tmp_path


def test_files_folders_globs_and_lists_are_counted(place: Path) -> None:
    for inputs, count in [
        (["a"], 3),
        (["a", "b"], 4),
        (["a", "a/"], 3),
        (["*.png"], 1),
        (["5.png", "6.jpg", "5.png"], 2),
        (["@list.txt"], 3),
        (["a", "@list.txt", "*.jpg"], 7),
    ]:
        assert count_items(inputs) == count, (inputs, count)


def test_the_count_is_that_of_the_items_served(place: Path) -> None:
    for inputs in [["a"], ["a", "b"], ["*.png", "*.jpg"], ["@list.txt"]]:
        assert count_items(inputs) == len(list(open_inputs(inputs, ReadOptions()))), inputs


def test_what_only_reading_tells_is_not_known(place: Path) -> None:
    for name in ["shard.tar", "shard.tar.gz", "table.parquet", "-", "memory://a/1.png"]:
        if name.startswith("shard"):
            Path(name).write_bytes(b"never opened")
        shutil.copyfile("5.png", "table.parquet")
        assert count_items(["a", name]) is None, name


def test_a_list_with_a_shard_in_it_is_not_known(place: Path) -> None:
    Path("list.txt").write_text("a/1.png\nshard.tar\n")
    assert count_items(["@list.txt"]) is None


def test_what_cannot_be_counted_is_left_to_the_run_to_refuse(place: Path) -> None:
    for name in ["missing.png", "@missing.txt", "*.bmp"]:
        assert count_items(["a", name]) is None, name


def test_it_counts_beside(place: Path) -> None:
    total = count_in_background(["a", "b"])
    for _ in range(1000):
        if total() is not None:
            break
        time.sleep(0.01)
    assert total() == 4
