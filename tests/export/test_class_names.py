"""Class names from files that editors on any system write, and what is said of names that repeat."""

import os
from pathlib import Path

import pytest

from diffood.errors import UsageError
from diffood.export.class_names import describe_repeated_names, read_class_names


def test_names_are_the_same_however_the_file_was_saved(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    for data in (
        "tench\nHände\ncrane\n",
        "tench\nHände\ncrane",
        "tench\r\nHände\r\ncrane\r\n",
        "\ufefftench\nHände\ncrane\n",
        "\ufefftench\r\nHände \r\n\r\ncrane\r\n",
        "tench\rHände\rcrane\r",
    ):
        file.write_bytes(data.encode())
        assert read_class_names(file) == ("tench", "Hände", "crane"), data


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_bytes("tench\nHände\n".encode("utf-16"))
    for path in (file, tmp_path / "none.txt"):
        with pytest.raises(UsageError, match=f"class names in {path} cannot be read as UTF-8"):
            read_class_names(path)


def test_what_is_no_list_of_names_is_refused(tmp_path: Path) -> None:
    file, sparse, fifo = (tmp_path / name for name in ("names.txt", "sparse.txt", "fifo"))
    with sparse.open("wb") as empty:
        empty.truncate(2**40)
    os.mkfifo(fifo)
    for path in (sparse, fifo, tmp_path):
        with pytest.raises(UsageError, match=f"{path} is not a file of at most 16777216 bytes; give one with a class"):
            read_class_names(path)
    for text, said in (
        ("x\n" * 100_001, "100001 class names, the"),
        ("x" * 1001, "1 class names, the longest of 1001 ch"),
    ):
        file.write_text(text)
        with pytest.raises(UsageError, match=said):
            read_class_names(file)


def test_names_that_repeat_are_told_with_their_classes() -> None:
    assert describe_repeated_names(["a", "b", "c"]) == ""
    assert describe_repeated_names([]) == ""
    told = describe_repeated_names(["crane", "b", "crane", "b"])
    assert told.startswith("class names repeat: 'crane' is of classes 0, 2; 'b' is of classes 1, 3. ")
    assert "and 3 more" in describe_repeated_names([*"abcdefgh", *"abcdefgh"])
