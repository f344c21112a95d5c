"""Attack: a watched folder whose names are used again, overwritten, or gone before anyone could read them."""

import hashlib
import os
import resource
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tars import png

from diffood.errors import RejectedImage
from diffood.runtime.images.decode import DEFAULT_LIMITS
from diffood.runtime.inputs.items import Item, Pause
from diffood.runtime.inputs.open import open_inputs
from diffood.runtime.inputs.reading import ReadOptions
from diffood.runtime.inputs.watch import ListedFolder, WatchedFolder, watch_folder

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inodes and links as Linux has them")


def said(item: Item) -> bytes | str:
    """Its bytes, or why there are none."""
    try:
        return item.read(DEFAULT_LIMITS)
    except RejectedImage as error:
        return str(error)


def watched(folder: Path, done: list[tuple[str, str]] | None = None, idle: float | None = None) -> Iterator[Item]:
    """The items of a watched folder; what the test does between two of them is done before the next listing."""
    reading = ReadOptions(watch=WatchedFolder(folder, idle, poll_seconds=0, settle_seconds=0), done=done or [])
    return (item for item in open_inputs([], reading) if not isinstance(item, Pause))


def overwrite(path: Path) -> None:
    path.write_bytes(png(3) + b"longer")


def overwrite_to_the_same_size(path: Path) -> None:
    path.write_bytes(png(2))
    os.utime(path, ns=(5, 5))


def overwrite_with_its_size_and_time(path: Path) -> None:
    kept = path.stat()
    while path.stat().st_ctime_ns == kept.st_ctime_ns:  # a clock of milliseconds may stand still
        path.write_bytes(png(2))
        os.utime(path, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    assert path.stat().st_size == kept.st_size


def move_another_there(path: Path) -> None:
    path.with_name(".new").write_bytes(png(2))
    path.with_name(".new").replace(path)


def remove_and_write_again(path: Path) -> None:
    kept = path.stat().st_mtime_ns
    path.unlink()
    path.write_bytes(png(2))
    os.utime(path, ns=(kept + 1, kept + 1))


def link_to_another(path: Path) -> None:
    path.with_name(".other").write_bytes(png(2))
    path.unlink()
    path.symlink_to(".other")


CHANGES = (
    overwrite,
    overwrite_to_the_same_size,
    overwrite_with_its_size_and_time,
    move_another_there,
    remove_and_write_again,
    link_to_another,
)


def test_each_version_of_a_name_is_an_item(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for change in CHANGES:
        with subtests.test(change=change.__name__):
            path = tmp_path / change.__name__ / "x.png"
            path.parent.mkdir()
            path.write_bytes(png(1))
            items = watched(path.parent)
            first = next(items)
            assert (first.id, said(first)) == ("x.png", png(1))
            change(path)
            second = next(items)
            assert (second.id, said(second)) == ("x.png#2", path.read_bytes())
            assert "was replaced or changed after it was listed" in str(said(first))
            move_another_there(path)
            (path.parent / "x.png#2").write_bytes(png(9))  # a file that has such a name itself
            assert {(item.id, said(item)) for item in (next(items), next(items))} == {
                ("x.png#3", png(2)),
                ("x.png#2#2", png(9)),
            }


def test_a_resumed_watch_scores_what_was_replaced_meanwhile_and_nothing_twice(tmp_path: Path) -> None:
    rows = []
    for name, versions in {"a": (1, 2), "b": (1,), "c": (1, 2), "d": (1,)}.items():
        for number, version in enumerate(versions, 1):
            identity = f"{name}.png" if number == 1 else f"{name}.png#{number}"
            rows.append((identity, hashlib.sha256(png(version)).hexdigest()))
        (tmp_path / f"{name}.png").write_bytes(png(versions[-1]))
    (tmp_path / "c.png").write_bytes(png(5))
    (tmp_path / "d.png").write_bytes(png(5))
    (tmp_path / "e.png").symlink_to("nowhere")
    rows.append(("e.png", ""))
    found = [(item.id, said(item)) for item in watched(tmp_path, rows, idle=0.01)]
    assert found == [("c.png#3", png(5)), ("d.png#2", png(5))]


def test_a_line_that_names_a_file_again_is_another_item_if_the_file_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    reading, writing = os.pipe()
    Path("x.png").write_bytes(png(1))
    with os.fdopen(reading) as stream, monkeypatch.context() as patch:
        patch.setattr("sys.stdin", stream)
        items = (item for item in open_inputs(["-"], ReadOptions()) if not isinstance(item, Pause))
        os.write(writing, b"x.png\nx.png\nlate.png\n")
        assert [(item.id, item.place) for item in (next(items), next(items))] == [
            ("x.png", str(tmp_path / "x.png")),
            ("late.png", str(tmp_path / "late.png")),
        ]
        overwrite(Path("x.png"))
        Path("late.png").write_bytes(png(4))
        os.write(writing, b"x.png\nlate.png\n")
        os.close(writing)
        assert [(item.id, said(item)) for item in items] == [
            ("x.png#2", Path("x.png").read_bytes()),
            ("late.png#2", png(4)),
        ]


def write(path: Path) -> None:
    path.write_bytes(png(1))


def test_what_was_seen_and_went_before_it_was_complete_is_refused(tmp_path: Path, subtests: pytest.Subtests) -> None:
    """(what is done before each of four listings, the items of all)."""
    steps: dict[str, tuple[list[Callable[[Path], object]], list[str]]] = {
        "removed": ([write, Path.unlink], ["x.png: cannot be read"]),
        "replaced": ([write, move_another_there], ["x.png: replaced", "x.png"]),
        "moved": ([write, lambda path: path.rename(path.with_name("y.png"))], ["y.png"]),
        "empty": ([Path.touch, Path.unlink], []),
        "growing": ([Path.touch, overwrite], ["x.png"]),
        "dangling": ([lambda path: path.symlink_to("nowhere")], ["x.png: cannot be read"]),
        "looping": ([lambda path: path.symlink_to(path.parent.parent)], ["x.png: link is not followed"]),
        "special": ([os.mkfifo], ["x.png: FIFO"]),
    }
    for name, (actions, expected) in steps.items():
        with subtests.test(name):
            folder = tmp_path / name / "cam"
            folder.mkdir(parents=True)
            listed = ListedFolder(WatchedFolder(folder, settle_seconds=0))
            found: list[Item] = []
            for number in range(4):
                if number < len(actions):
                    actions[number](folder / "x.png")
                found += listed.next_items()
            assert len(found) == len(expected)
            for item, wanted in zip(found, expected, strict=True):
                identity, _, words = wanted.partition(": ")
                assert item.id == identity
                assert words in str(said(item)) if words else isinstance(said(item), bytes)
            assert not listed.waits


def test_a_watch_outlasts_a_lack_of_descriptors(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(png(1))
    items = watch_folder(WatchedFolder(tmp_path, poll_seconds=0, settle_seconds=0), threading.Event())
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    timer = threading.Timer(0.2, resource.setrlimit, (resource.RLIMIT_NOFILE, before))
    timer.start()
    try:
        item = next(items)
    finally:
        timer.join()
    assert isinstance(item, Item)
    assert said(item) == png(1)
