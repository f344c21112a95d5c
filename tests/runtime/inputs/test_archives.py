"""Shards: members become items with the right bytes; what is hostile in a tar costs a row, not the run or the disk."""

import bz2
import gzip
import io
import itertools
import lzma
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from tars import END, member, png, raw_header, tar

from diffood.errors import RejectedImage
from diffood.runtime.images.decode import DEFAULT_LIMITS, ImageLimits
from diffood.runtime.inputs import archives
from diffood.runtime.inputs.archives import TarMember, list_shard
from diffood.runtime.inputs.items import InlineItem, Item, RefusedItem
from diffood.runtime.inputs.labels import LeftOut
from diffood.runtime.inputs.open import container_at
from diffood.runtime.inputs.reading import ReadOptions

LIMITS = ImageLimits(max_bytes=10_000)
GOOD = [member("a.png", png(1)), member("a.cls", b"3"), member("sub/b.JPG", png(2)), member("c.png", png(3))]
ENDINGS = (".tar", ".tar.gz", ".tgz")


def write(folder: Path, data: bytes, ending: str = ".tar") -> Path:
    path = folder / f"shard{ending}"
    path.write_bytes(data if ending == ".tar" else gzip.compress(data))
    return path


def listed(path: Path, limits: ImageLimits = LIMITS) -> list[Item]:
    return list(list_shard(str(path), path.name, ReadOptions(limits)))


def rows(items: Iterable[Item], limits: ImageLimits = LIMITS) -> dict[str, bytes | str]:
    """The bytes of each item, or why there are none, by id; ids must be distinct."""
    found: dict[str, bytes | str] = {}
    for item in items:
        assert item.id not in found
        try:
            found[item.id] = item.read(limits)
        except RejectedImage as error:
            found[item.id] = str(error)
    return found


def shard(path: Path, limits: ImageLimits = LIMITS) -> dict[str, bytes | str]:
    """Rows of a shard; ids without its name."""
    found = rows(list_shard(str(path), path.name, ReadOptions(limits)), limits)
    return {name.removeprefix(path.name).removeprefix("/"): value for name, value in found.items()}


def test_image_members_are_items_in_their_order(tmp_path: Path) -> None:
    for ending in ENDINGS:
        found = shard(write(tmp_path, tar(GOOD), ending))
        assert list(found.items()) == [("a.png", png(1)), ("sub/b.JPG", png(2)), ("c.png", png(3))], ending


def test_what_python_and_others_write_is_read(tmp_path: Path) -> None:
    for form in [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]:
        for ending in ENDINGS:
            names = ["0001.png", "ü/🙂.png", "long/" * 30 + "name.png"] + (["x" * 300 + ".png"] if form else [])
            path = tmp_path / f"shard{ending}"
            with tarfile.open(path, "w" if ending == ".tar" else "w:gz", format=form) as archive:
                for number, name in enumerate(names):
                    info = tarfile.TarInfo(name)
                    info.size = len(png(number))
                    archive.addfile(info, io.BytesIO(png(number)))
            found = list(shard(path).items())
            assert found == [(name, png(number)) for number, name in enumerate(names)], (form, ending)


def test_members_of_a_plain_tar_stay_on_disk_until_they_are_read(tmp_path: Path) -> None:
    assert {type(item) for item in listed(write(tmp_path, tar(GOOD)))} == {TarMember}
    assert {type(item) for item in listed(write(tmp_path, tar(GOOD), ".tar.gz"))} == {InlineItem}


def test_a_member_is_found_by_another_process_after_pickling(tmp_path: Path) -> None:
    import pickle

    items = listed(write(tmp_path, tar(GOOD)))
    assert [item.read(LIMITS) for item in pickle.loads(pickle.dumps(items))] == [png(1), png(2), png(3)]


def test_a_member_that_is_no_image_file_is_a_row(tmp_path: Path) -> None:
    for ending in [".tar", ".tar.gz"]:
        for bad, reason in [
            (member("bad.png", kind=tarfile.SYMTYPE, link="/etc/passwd"), "a link"),
            (member("bad.png", kind=tarfile.LNKTYPE, link="a.png"), "a link"),
            (member("bad.png", kind=tarfile.LNKTYPE, link="../../etc/passwd"), "a link"),
            (member("bad.png", kind=tarfile.CHRTYPE), "not a regular file"),
            (member("bad.png", kind=tarfile.FIFOTYPE), "not a regular file"),
            (member("bad.png", b"x" * 10_001), "has 10001 bytes and the limit is 10000"),
        ]:
            found = shard(write(tmp_path, tar([GOOD[0], bad, GOOD[3]]), ending))
            assert list(found) == ["a.png", "bad.png", "c.png"], (ending, reason)
            assert reason in str(found.pop("bad.png")), (ending, reason)
            assert found == {"a.png": png(1), "c.png": png(3)}, (ending, reason)


def test_a_sparse_member_is_a_row(tmp_path: Path) -> None:
    header = bytearray(member("bad.png", b"x" * 512, kind=tarfile.GNUTYPE_SPARSE))
    header[386:398], header[398:410], header[483:495] = b"00000000000\0", b"00000001000\0", b"00000001000\0"
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header[:512]):06o}\0 ".encode()
    found = shard(write(tmp_path, tar([GOOD[0], bytes(header), GOOD[3]])))
    assert "a sparse file" in str(found["bad.png"])
    assert found["c.png"] == png(3)


def test_names_are_text_and_nothing_is_written(tmp_path: Path) -> None:
    for name in [
        "/etc/cron.d/a.png",
        "../../a.png",
        "C:\\a.png",
        "a\nb.png",
        "-rf.png",
        "a\x1b[2J.png",
        "~root/ssh/a.png",
    ]:
        for ending in ENDINGS:
            path = write(tmp_path, tar([member(name, png(1))]), ending)
            before = sorted(tmp_path.rglob("*"))
            assert list(shard(path).values()) == [png(1)], (name, ending)
            [item] = list_shard(str(path), f"s{ending}", ReadOptions(LIMITS))
            assert item.id.isascii(), (name, ending)
            assert sorted(tmp_path.rglob("*")) == before, (name, ending)


def test_folders_hidden_files_and_labels_of_images_are_left_out_and_counted(tmp_path: Path) -> None:
    more = [
        member("d.png/", kind=tarfile.DIRTYPE),
        member("._a.png", b"mac"),
        member("x/.b.png", b""),
        member(".cache/c.png", png(1)),
        member("noend", b"what is this"),
        member("alone.txt", b"words"),
    ]
    reading = ReadOptions(LIMITS)
    for ending in ENDINGS:
        path = write(tmp_path, tar([*more, *GOOD]), ending)
        found = [item.id.removeprefix(f"{path.name}/") for item in list_shard(str(path), path.name, reading)]
        assert found == ["noend", "a.png", "sub/b.JPG", "c.png", "alone.txt"], ending
    assert reading.left_out == LeftOut(labels=3, hidden=9)


def test_a_shard_is_known_by_its_contents(tmp_path: Path) -> None:
    packers = {"": bytes, "gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}
    for packer, ending in itertools.product(
        packers, [".tar", ".tar.gz", ".tgz", ".tar.xz", ".zip", ".parquet", "", ".1"]
    ):
        path = tmp_path / f"shard{ending}"
        path.write_bytes(packers[packer](tar(GOOD)))
        assert container_at(path) is archives.TAR, (packer, ending)
        assert list(shard(path)) == ["a.png", "sub/b.JPG", "c.png"], (packer, ending)


def test_what_cannot_be_unpacked_is_one_row_that_says_why(tmp_path: Path) -> None:
    greedy = lzma.compress(tar(GOOD), filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 2**29}])
    for data, reason in [(b"\x28\xb5\x2f\xfd" + bytes(100), "Zstandard"), (greedy, "Memory usage limit")]:
        (tmp_path / "shard.tar.x").write_bytes(data)
        assert reason in str(shard(tmp_path / "shard.tar.x")[""])


def test_shards_one_after_the_other_are_one(tmp_path: Path) -> None:
    first, empty, last = tar([member("a.png", png(1))]), bytes(10_240), tar([member("b.png", png(2))])
    whole = {"a.png": png(1), "b.png": png(2)}
    for data in (first + last, first + bytes(8704) + last, empty + first + last, first + empty + last + empty):
        for ending in ENDINGS:
            assert shard(write(tmp_path, data, ending)) == whole, ending
    (tmp_path / "s.tgz").write_bytes(gzip.compress(first) + gzip.compress(last))
    assert shard(tmp_path / "s.tgz") == whole
    (tmp_path / "s.tar.xz").write_bytes(lzma.compress(first) + lzma.compress(last))
    assert shard(tmp_path / "s.tar.xz") == whole


def test_damage_after_the_first_of_several_shards_is_a_row(tmp_path: Path) -> None:
    first, last = tar([member("a.png", png(1))]), bytearray(tar([member("b.png", png(2))]))
    last[0] ^= 1
    for ending in ENDINGS:
        found = shard(write(tmp_path, first + bytes(last), ending))
        assert "a block that is not a header" in str(found.pop(""))
        assert found == {"a.png": png(1)}


def test_names_of_members_are_those_of_files(tmp_path: Path) -> None:
    names = ["./a.png", "d//b.png", "./d/./c.png", "/e.png"]
    found = shard(write(tmp_path, tar([member(name, png(1)) for name in names])))
    assert list(found) == ["a.png", "d/b.png", "d/c.png", "e.png"]


def test_what_was_whole_is_kept_of_a_damaged_shard(tmp_path: Path) -> None:
    for ending in [".tar", ".tar.gz"]:
        for data, reason, whole in [
            (b"", "empty file", 0),
            (b"this is no tar" * 100, "header", 0),
            (tar(GOOD, end=b""), "has no end mark", 3),
            (tar(GOOD[:1], end=b"garbage" * 100), "a block that is not a header", 1),
            (tar([GOOD[0], b"\xff" * 512, GOOD[3]]), "a block that is not a header", 1),
            (tar([GOOD[0], raw_header("n.png", b"\xff" * 11 + b"\0"), GOOD[3]]), "a member of -", 1),
            (tar([GOOD[0], raw_header("n", b"\xff" * 10 + b"\0\0", b"x"), GOOD[3]]), "", 1),
            (tar([GOOD[0], raw_header("n", b"77777777777", b"x"), GOOD[3]]), "a header of more than", 1),
            (tar([GOOD[0], raw_header("n", b"77777777777", b"L"), GOOD[3]]), "a header of more than", 1),
            (tar([GOOD[0], *[member("pax", b"9 a=bbb\n\n", kind=b"x")] * 5000, GOOD[3]]), "", 1),
            (tar([GOOD[0], raw_header("big.cls", b"\x80" + b"\x7f" * 11), GOOD[3]]), "", 1),
        ]:
            path = write(tmp_path, data, ending)
            found = shard(path)
            said = found.pop("")
            start = "The shard, or its rest after the last row, cannot be read ("
            assert str(said).startswith(start), (ending, reason)
            assert reason in str(said), (ending, reason)
            assert str(said).isprintable(), (ending, reason)
            assert len(str(said)) < 400, (ending, reason)
            images = [value for value in found.values() if isinstance(value, bytes)]
            assert images == [png(1), png(2), png(3)][:whole], (ending, reason)


def test_a_shard_cut_anywhere_keeps_what_came_before_and_says_so(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for ending in [".tar", ".tar.gz"]:
        with subtests.test(ending=ending):
            parts = [member(f"{number}.png", png(number)) for number in range(4)]
            data = tar(parts)
            ends = [sum(map(len, parts[:number])) for number in range(1, 5)]
            for length in [*range(0, len(data) - 1024, 100), *ends]:
                path = write(tmp_path, data[:length], ending)
                found = shard(path)
                assert "cannot be read" in str(found.pop(""))
                for number, (name, value) in enumerate(found.items()):
                    assert name == f"{number}.png"
                    if isinstance(value, str):
                        assert "ends after" in value
                    else:
                        assert value == png(number)
                assert sum(isinstance(value, bytes) for value in found.values()) >= sum(length >= end for end in ends)


def test_a_compressed_shard_cut_in_the_middle_keeps_what_came_before(tmp_path: Path) -> None:
    rng_bytes = [os.urandom(5000) for _ in range(4)]
    data = gzip.compress(tar([member(f"{number}.png", rng_bytes[number]) for number in range(4)]))
    (tmp_path / "s.tgz").write_bytes(data[: len(data) // 2])
    found = shard(tmp_path / "s.tgz")
    assert "EOFError" in str(found.pop(""))
    assert list(found.values()) == rng_bytes[: len(found)]
    assert len(found) == 1


def test_a_bomb_of_zeros_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "SKIPPED_BYTES", 2**24)
    path = tmp_path / "bomb.tgz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(GOOD[0] + raw_header("big.png", f"{2**26:011o}".encode()))
        for _ in range(64):
            file.write(bytes(2**20))
        file.write(GOOD[3] + END)
    found = shard(path)
    assert found["a.png"] == png(1)
    assert f"has {2**26} bytes" in str(found["big.png"])
    assert "that are not images" in str(found[""])
    assert "c.png" not in found


def test_a_chain_of_empty_members_counts_against_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "SKIPPED_BYTES", 2**20)
    path = write(tmp_path, tar([member(f"{number}.png") for number in range(5000)]), ".tgz")
    found = shard(path)
    assert "bytes that are not images" in str(found[""])
    assert len(found) < 2100


def test_zeros_without_end_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "UNUSED_END", 2**20)
    path = tmp_path / "sparse.tar"
    path.write_bytes(tar(GOOD))
    os.truncate(path, 2**40)
    found = shard(path)
    assert "zeros after its end mark" in str(found.pop(""))
    assert list(found) == ["a.png", "sub/b.JPG", "c.png"]


def test_an_endless_chain_of_empty_members_is_read_lazily(tmp_path: Path) -> None:
    path = tmp_path / "s.tgz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for number in range(20_000):
            file.write(member(f"{number}.png"))
    items = list_shard(str(path), "s.tgz", ReadOptions(LIMITS))
    assert [next(items).id for _ in range(3)] == ["s.tgz/0.png", "s.tgz/1.png", "s.tgz/2.png"]


def test_a_shard_that_is_changed_after_it_was_listed_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path, tar(GOOD))
    items = listed(path)
    stamp = path.stat().st_mtime_ns
    os.utime(path, ns=(stamp, stamp + 10**6))
    assert "was changed after it was listed" in str(rows(items)["shard.tar/a.png"])
    path.unlink()
    assert "can no longer be read" in str(rows(items)["shard.tar/a.png"])


def test_what_is_no_shard_is_one_row(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.tar")
    (tmp_path / "folder.tar").mkdir()
    for name in ("missing.tar", "fifo.tar", "folder.tar"):
        [item] = list_shard(str(tmp_path / name), name, ReadOptions(LIMITS))
        assert isinstance(item, RefusedItem), name
        assert "missing or not a regular file" in item.reason, name


def test_a_name_of_a_megabyte_is_shortened(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("x" * 500_000 + ".png")
        info.size = len(png(1))
        archive.addfile(info, io.BytesIO(png(1)))
    [item] = list_shard(str(path), "s.tar", ReadOptions(DEFAULT_LIMITS))
    assert len(item.id) < 200
    assert item.read(DEFAULT_LIMITS) == png(1)


def test_memory_does_not_grow_with_members(tmp_path: Path) -> None:
    import tracemalloc

    path = write(tmp_path, tar([member(f".{number}.png", b"") for number in range(20_000)]))
    tracemalloc.start()
    assert listed(path) == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_no_damage_to_a_shard_ends_the_listing_with_an_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for number in range(3):
            info = tarfile.TarInfo(f"{'ü' * number}.png")
            info.size, info.pax_headers = len(png(number)), {"GNU.sparse.major": "1"} if number == 2 else {}
            archive.addfile(info, io.BytesIO(png(number)))
    for number in range(300):
        data = bytearray(stream.getvalue())
        for _ in range(rng.integers(1, 4)):
            at = int(rng.integers(0, len(data) // 512)) * 512
            at += int(rng.choice([0, 100, 124, 130, 135, 156, 157, 257, 345, 483, int(rng.integers(512))]))
            data[at] = int(rng.choice([0, 32, 45, 48, 55, 120, 128, 255]))
            header = at // 512 * 512
            if rng.random() < 0.8:
                data[header + 148 : header + 156] = b" " * 8
                data[header + 148 : header + 156] = f"{sum(data[header : header + 512]):06o}\0 ".encode()
        path = write(tmp_path, bytes(data), ".tar" if number % 2 else ".tgz")
        for item in list_shard(str(path), path.name, ReadOptions(LIMITS)):
            item.id.encode()
            rows([item])
