"""All inputs as one stream: their order, their ids, what is refused at once and what becomes a row."""

import gzip
import hashlib
import itertools
import os
import pickle
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from denied import deny
from tars import member, png, tar

from diffood.errors import RejectedImage, UsageError
from diffood.runtime.images.decode import ImageLimits
from diffood.runtime.inputs.counting import count_items
from diffood.runtime.inputs.files import LONGEST_LINE
from diffood.runtime.inputs.items import Item, LocalFile
from diffood.runtime.inputs.open import list_inputs, open_inputs
from diffood.runtime.inputs.reading import InputRules, ReadOptions
from diffood.runtime.inputs.watch import WatchedFolder

LIMITS = ImageLimits(max_bytes=10_000)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two folders, a shard, a compressed one and a table in the working directory."""
    for name in ("one/b.png", "one/a.png", "one/b/c.png", "one/b-/d.png", "one/.x.png", "two/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(png(1))
    shard = tar([member("m.png", png(2)), member("l.png", png(3))])
    (tmp_path / "s.tar").write_bytes(shard)
    (tmp_path / "z.tgz").write_bytes(gzip.compress(shard))
    pq.write_table(pa.table({"image": [png(4), png(5)], "key": ["k", "j"]}), tmp_path / "t.parquet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def items(*inputs: str, reading: ReadOptions | None = None) -> list[Item]:
    return [item for item in open_inputs(inputs, reading or ReadOptions(LIMITS)) if isinstance(item, Item)]


def ids(*inputs: str) -> list[str]:
    return [item.id for item in items(*inputs)]


def refusals(found: Sequence[Item]) -> dict[str, str]:
    reasons = {}
    for item in found:
        try:
            item.read(LIMITS)
        except RejectedImage as error:
            reasons[item.id] = str(error)
    return reasons


def test_inputs_come_in_the_order_given_each_in_its_own(tree: Path) -> None:
    (tree / "list.txt").write_text("two/a.png\none/a.png\n")
    assert ids("t.parquet", "s.tar", "two", "z.tgz", "@list.txt", "one/b.png") == [
        *("t.parquet/0", "t.parquet/1", "s.tar/m.png", "s.tar/l.png", "a.png", "z.tgz/m.png", "z.tgz/l.png"),
        *("two/a.png", "one/a.png", "one/b.png"),
    ]


def test_a_folder_has_the_items_and_the_order_of_the_sorted_list(tree: Path) -> None:
    for inputs in (["one"], ["./one"], ["one", "two"]):
        assert items(*inputs) == list_inputs(inputs)
    assert ids("one") == ["a.png", "b-/d.png", "b.png", "b/c.png"]


def test_a_folder_is_listed_as_it_is_needed(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scanned = []
    scan = os.scandir

    def note(path: str) -> object:
        scanned.append(os.fspath(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", note)
    stream = open_inputs(["one"], ReadOptions(LIMITS))
    assert next(stream) == LocalFile("a.png", Path("one/a.png"))
    assert scanned == ["one"]
    list(stream)
    assert scanned == ["one", "one/b-", "one/b"]


def test_a_folder_that_cannot_be_listed_is_a_row_with_the_reason(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deny(monkeypatch, "b-")
    assert ids("one") == ["a.png", "b-", "b.png", "b/c.png"]
    assert refusals(items("one"))["b-"].startswith("The folder cannot be listed (Permission denied)")


def test_loops_of_links_end(tree: Path) -> None:
    (tree / "one" / "b" / "up").symlink_to(tree / "one")
    (tree / "one" / "self.png").symlink_to("self.png")
    assert ids("one") == ["a.png", "b-/d.png", "b.png", "b/c.png", "self.png"]
    assert "Too many levels of symbolic links" in refusals(items("one"))["self.png"]


def test_what_is_deleted_after_it_was_listed_is_a_row(tree: Path) -> None:
    stream = open_inputs(["one", "s.tar"], ReadOptions(LIMITS))
    first = next(stream)
    assert isinstance(first, Item)
    (tree / "one" / "a.png").unlink()
    (tree / "one" / "b.png").unlink()
    rest = [item for item in stream if isinstance(item, Item)]
    (tree / "s.tar").unlink()
    found = refusals([first, *rest])
    assert "No such file or directory" in found["a.png"]
    assert "can no longer be read" in found["s.tar/m.png"]


def test_a_folder_deleted_while_it_is_listed_is_a_row(tree: Path) -> None:
    stream = open_inputs(["one"], ReadOptions(LIMITS))
    next(stream)
    (tree / "one" / "b-" / "d.png").unlink()
    (tree / "one" / "b-").rmdir()
    assert "cannot be listed" in refusals([item for item in stream if isinstance(item, Item)])["b-"]


def test_what_is_given_twice_counts_once(tree: Path) -> None:
    for inputs in [
        *(["one", "./one"], ["one", "one/"], ["one/a.png", "./one/a.png", "one/[a].png"], ["s.tar", "./s.tar"]),
        *(["z.tgz", "./z.tgz"], ["t.parquet", "./t.parquet"], ["@list.txt"]),
    ]:
        (tree / "list.txt").write_text("one/a.png\n./one/a.png\n\none/a.png\n")
        found = ids(*inputs)
        assert found == list(dict.fromkeys(found)), inputs
        assert not any("#" in name for name in found), inputs


def test_an_id_that_is_taken_is_refused_under_another(tree: Path) -> None:
    (tree / "a.png").write_bytes(png(9))
    (tree / "a.png#2").write_bytes(png(9))
    assert ids("two", "a.png", "a.png#2") == ["a.png", "a.png#2", "a.png#2#2"]
    found = refusals(items("two", "a.png", "a.png#2"))
    assert list(found) == ["a.png#2", "a.png#2#2"]
    assert "has the id 'a.png' too" in found["a.png#2"]


def test_names_and_ids_that_repeat_within_a_shard_and_a_table_are_refused(tree: Path) -> None:
    (tree / "d.tar").write_bytes(tar([member("m.png", png(1)), member("m.png", png(2)), member("m.png", png(3))]))
    assert ids("d.tar") == ["d.tar/m.png", "d.tar/m.png#2", "d.tar/m.png#3"]
    assert len(refusals(items("d.tar"))) == 2
    pq.write_table(pa.table({"image": [png(1), png(2)], "key": ["k", "k"]}), tree / "d.parquet")
    found = items("d.parquet", reading=ReadOptions(LIMITS, InputRules(id_column="key")))
    assert [item.id for item in found] == ["k", "k#2"]
    assert list(refusals(found)) == ["k#2"]


def test_very_many_members_of_one_name_are_refused_in_no_time(tree: Path) -> None:
    (tree / "d.tar").write_bytes(tar([member("m.png", b"x")] * 20_000))
    found = ids("d.tar")  # searching a free number from the first one would take 200 million steps
    assert found[:3] == ["d.tar/m.png", "d.tar/m.png#2", "d.tar/m.png#3"]
    assert len(set(found)) == 20_000


def test_what_names_nothing_is_wrong_usage_at_once(tree: Path) -> None:
    for name in [
        "nowhere",
        "one/none.png",
        "one/*.jpg",
        "none.tar",
        "@nowhere.txt",
        "@one",
        "x" * 5000,
        "@" + "x" * 5000,
    ]:
        for inputs in ([name], ["one", name]):
            with pytest.raises(UsageError):
                open_inputs(inputs, ReadOptions(LIMITS))


def test_nothing_to_serve_is_wrong_usage(tree: Path) -> None:
    (tree / "empty").mkdir()
    (tree / "list.txt").touch()
    for inputs in (["empty"], ["@list.txt"]):
        with pytest.raises(UsageError, match="No files in"):
            open_inputs(inputs, ReadOptions(LIMITS))
    with pytest.raises(UsageError, match="No INPUT"):
        open_inputs([], ReadOptions(LIMITS))


def test_a_list_names_shards_tables_and_missing_files(tree: Path) -> None:
    (tree / "two" / "list.txt").write_text("../s.tar\n../t.parquet\na.png\nnone.png\n")
    assert ids("@two/list.txt") == [
        *("../s.tar/m.png", "../s.tar/l.png", "../t.parquet/0", "../t.parquet/1", "a.png", "none.png"),
    ]
    assert list(refusals(items("@two/list.txt"))) == ["none.png"]


def test_a_list_may_come_from_a_pipe(tree: Path) -> None:
    os.mkfifo(tree / "list")
    threading.Thread(target=lambda: (tree / "list").write_text("one/a.png\none/b.png")).start()
    assert ids("@list") == ["one/a.png", "one/b.png"]


BAD_LINES = {"x" * (LONGEST_LINE + 1): ":3", "y" * (3 * LONGEST_LINE): ":3", "foo://bar": "foo://bar", "a\0b.png": "a"}
BAD_LINES |= {"\udcff.png": "xff", "empty": "empty", "é" * 30_000 + ".parquet": "é", "none.tar": "none", "~": "~"}
BAD_LINES |= {"http://[::1": "::1", "zip://x::foo://y": "foo", "s/" * 9_000: "s/", "foo://x.parquet": "foo"}


def test_a_bad_line_of_a_list_is_one_row_and_the_lines_after_it_are_read(
    tree: Path, monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    (tree / "empty").mkdir()
    wanted = ["one/a.png", "s.tar/m.png", "s.tar/l.png", "one/b.png", "z.tgz/m.png", "z.tgz/l.png", "two/a.png"]
    for (line, said), source in itertools.product(BAD_LINES.items(), ("@list.txt", "-")):
        with subtests.test(line=line[:99], length=len(line), source=source):
            names = ["one/a.png", "s.tar", line, "", "one/b.png", "z.tgz", "two/a.png"]
            (tree / "list.txt").write_bytes(os.fsencode("".join(f"{name}\n" for name in names)))
            with (tree / "list.txt").open() as stream:
                monkeypatch.setattr("sys.stdin", stream)
                found = items(source)
            good = [item.id for item in found]
            [bad] = refusals(found)
            good.remove(bad)
            assert good == wanted
            assert said in bad
            assert len(refusals(found)[bad]) < 300


def test_a_list_may_begin_with_a_byte_order_mark(tree: Path) -> None:
    (tree / "list.txt").write_text("\ufeffone/a.png\r\none/b.png\r\n", encoding="utf-8")
    assert ids("@list.txt") == ["one/a.png", "one/b.png"]
    assert refusals(items("@list.txt")) == {}


def test_spaces_around_a_line_matter_only_if_there_is_such_a_file(tree: Path) -> None:
    (tree / " a.png").write_bytes(png(1))
    (tree / "list.txt").write_text(" a.png\n  one/b.png \n")
    assert ids("@list.txt") == [" a.png", "one/b.png"]
    assert refusals(items("@list.txt")) == {}


def test_folders_in_a_list_and_of_a_pattern_give_their_files(tree: Path) -> None:
    (tree / "list.txt").write_text("one\none/a.png\ntwo\n")
    for inputs in ("@list.txt", "[ot]*o*"), ("@list.txt",), ("[ot]*",), ("**/*o*",):
        found = set(ids(*inputs))
        assert {"one/a.png", "one/b-/d.png", "one/b.png", "one/b/c.png", "two/a.png"} <= found, inputs
        assert len(found) == len(ids(*inputs)), inputs
        assert refusals(items(*inputs)) == {}, inputs


def test_containers_in_a_folder_give_their_items(tree: Path) -> None:
    (tree / "two" / "s.tar").write_bytes((tree / "s.tar").read_bytes())
    (tree / "two" / "shard").write_bytes((tree / "z.tgz").read_bytes())
    (tree / "two" / "t.parquet").write_bytes((tree / "t.parquet").read_bytes())
    expected = ["a.png", "s.tar/m.png", "s.tar/l.png", "shard/m.png", "shard/l.png", "t.parquet/0", "t.parquet/1"]
    assert ids("two") == expected
    assert [item.id for item in list_inputs(["two"])] == sorted(expected)


def test_standard_input_gives_paths(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"one/a.png\ns.tar\nnone.png")
    os.close(writing)
    with os.fdopen(reading) as stream:
        monkeypatch.setattr("sys.stdin", stream)
        found = items("-")
    assert [item.id for item in found] == ["one/a.png", "s.tar/m.png", "s.tar/l.png", "none.png"]


def test_ids_that_have_their_rows_are_passed_over(tree: Path) -> None:
    done = ["b.png", "b/c.png", "s.tar/m.png", "none"]
    for inputs in (["one"], ["one", "s.tar"]):
        found = items(*inputs, reading=ReadOptions(LIMITS, done=[(name, "") for name in done]))
        assert [item.id for item in found] == [name for name in ids(*inputs) if name not in done]
    watch = WatchedFolder(tree / "one", idle_seconds=0.1, poll_seconds=0.02, settle_seconds=0.05)
    rows = [(name, hashlib.sha256((tree / "one" / name).read_bytes()).hexdigest()) for name in done[:2]]
    found = items(reading=ReadOptions(LIMITS, watch=watch, done=rows))
    assert [item.id for item in found] == ["a.png", "b-/d.png"]


def test_what_is_left_out_of_a_list_is_logged(tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tree / "one" / "a.txt").touch()
    with caplog.at_level("INFO", logger="diffood"):
        list_inputs(["one"])
        assert caplog.messages == ["left out    1 label, 1 hidden file of one"]
        list_inputs(["two"])
        assert len(caplog.messages) == 1
    (tree / "empty").mkdir()
    (tree / "empty" / ".a.png").touch()
    for listing in (list_inputs, lambda names: open_inputs(names, ReadOptions())):
        with pytest.raises(UsageError, match="No files in empty but 1 hidden file; name"):
            listing(["empty"])


def test_shuffled_items_come_in_an_order_of_their_ids_alone(tree: Path) -> None:
    inputs = ["one", "two", "z.tgz", "t.parquet", "@list.txt"]
    (tree / "list.txt").write_text("s.tar\n")
    shuffle = ReadOptions(LIMITS, shuffle=True)
    found = [items(*order, reading=shuffle) for order in (inputs, inputs[::-1])]
    assert [item.id for item in found[0]] == [item.id for item in found[1]] != ids(*inputs)
    assert {item.id: item.read(LIMITS) for item in found[0]} == {item.id: item.read(LIMITS) for item in items(*inputs)}
    for endless in (["-"], []):
        watch = None if endless else WatchedFolder(tree / "two")
        with pytest.raises(UsageError, match="--shuffle lists all inputs first"):
            open_inputs(["one", *endless], ReadOptions(LIMITS, watch=watch, shuffle=True))


def test_a_watched_folder_comes_last(tree: Path) -> None:
    watch = WatchedFolder(tree / "two", idle_seconds=0.1, poll_seconds=0.02, settle_seconds=0.05)
    assert [item.id for item in items("one/a.png", reading=ReadOptions(LIMITS, watch=watch))] == ["one/a.png", "a.png"]


def test_a_list_of_items_can_be_read_again_and_in_another_process(tree: Path) -> None:
    listed = list_inputs(["t.parquet", "z.tgz", "s.tar", "one"])
    assert [item.id for item in listed] == sorted(item.id for item in listed)
    assert sum(item.held for item in listed) == 0  # bytes that came with the listing are on the disk
    once = [item.read(LIMITS) for item in listed]
    assert [item.read(LIMITS) for item in listed] == once
    assert [item.read(LIMITS) for item in pickle.loads(pickle.dumps(listed))] == once


def test_a_list_of_nothing_but_damage_is_wrong_usage(tree: Path) -> None:
    (tree / "torn.tar").write_bytes(b"this is no tar" * 100)
    with pytest.raises(UsageError, match=r"Nothing in torn\.tar can be used\. The shard, or its rest"):
        list_inputs(["torn.tar"])
    assert [item.id for item in list_inputs(["torn.tar", "one/a.png"])] == ["one/a.png", "torn.tar"]


def test_one_input_alone_is_not_taken_for_letters(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"1")
    expected = list_inputs([str(tmp_path)])
    for alone in (str(tmp_path), tmp_path, [tmp_path], (path for path in [tmp_path])):
        assert list_inputs(alone) == expected
    for alone in (str(tmp_path), tmp_path):
        assert list(open_inputs(alone, ReadOptions())) == expected
        assert count_items(alone) == 1


def test_another_thread_may_end_a_listing(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Garbage is collected by whichever thread allocates next."""
    raised: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", raised.append)
    listings = [open_inputs(["one", "two"], ReadOptions())]
    next(listings[0])
    with ThreadPoolExecutor(1) as pool:
        pool.submit(listings.clear).result()
    assert not raised
