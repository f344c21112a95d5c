"""Zip archives: members become items with the right bytes; what is hostile in a zip costs a row, not the run."""

import io
import os
import pickle
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
from tars import png

from diffood.errors import RejectedImage
from diffood.runtime.images.decode import ImageLimits
from diffood.runtime.inputs import zips
from diffood.runtime.inputs.items import InlineItem, Item, RefusedItem
from diffood.runtime.inputs.labels import LeftOut
from diffood.runtime.inputs.open import container_at
from diffood.runtime.inputs.reading import ReadOptions
from diffood.runtime.inputs.zips import ZIP, ZipMember, list_zip

LIMITS = ImageLimits(max_bytes=10_000)
GOOD = {"a.png": png(1), "sub/b.JPG": png(2), "notes.md": b"words", "c.png": png(3)}


def packed(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def written(folder: Path, data: bytes, name: str = "a.zip") -> Path:
    (folder / name).write_bytes(data)
    return folder / name


def listed(path: Path, limits: ImageLimits = LIMITS) -> list[Item]:
    return list(list_zip(str(path), path.name, ReadOptions(limits)))


def rows(path: Path, limits: ImageLimits = LIMITS) -> dict[str, bytes | str]:
    """The bytes of each member, or why there are none, by its name; "" is the archive itself."""
    found: dict[str, bytes | str] = {}
    for item in listed(path, limits):
        name = item.id.removeprefix(path.name).removeprefix("/")
        assert name not in found
        try:
            found[name] = item.read(limits)
        except RejectedImage as error:
            found[name] = str(error)
    return found


def test_members_are_items_in_their_order_and_stay_on_disk(tmp_path: Path) -> None:
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path = written(tmp_path, packed(GOOD, method))
        assert list(rows(path).items()) == list(GOOD.items())
        assert {type(item) for item in listed(path)} == {ZipMember}
        again = pickle.loads(pickle.dumps(listed(path)))
        assert [item.read(LIMITS) for item in again] == list(GOOD.values())


def test_members_of_a_remote_archive_come_with_the_listing(tmp_path: Path) -> None:
    path = written(tmp_path, packed(GOOD | {"big.png": b"x" * 10_001}))
    found = list(list_zip(f"file://{path}", "a.zip", ReadOptions(LIMITS)))
    assert [type(item) for item in found] == [InlineItem] * 4 + [RefusedItem]
    assert [item.read(LIMITS) for item in found[:4]] == list(GOOD.values())


def test_hidden_members_folders_and_labels_are_left_out_and_counted(tmp_path: Path) -> None:
    more = {"d/": b"", "__MACOSX/._a.png": b"mac", ".git/x.png": b"", "0.txt": b"label", "0.png": png(1)}
    reading = ReadOptions(LIMITS)
    found = [item.id for item in list_zip(str(written(tmp_path, packed(more))), "z", reading)]
    assert found == ["z/0.png"]
    assert reading.left_out == LeftOut(labels=1, hidden=2)


def test_a_zip_is_known_by_its_contents_and_a_document_is_no_archive(tmp_path: Path) -> None:
    for name in ("a.zip", "a.tar", "a.parquet", "noending", "a.weird"):
        assert container_at(written(tmp_path, packed(GOOD), name)) is ZIP, name
    for name, first in [("a.docx", "[Content_Types].xml"), ("w.npz", "arr_0.npy"), ("x.jar", "META-INF/")]:
        assert container_at(written(tmp_path, packed({first: b"", "image.png": png(1)}), name)) is None, name


def info(name: str, mode: int = 0, **fields: int) -> zipfile.ZipInfo:
    found = zipfile.ZipInfo(name)
    found.external_attr = mode << 16
    for field, value in fields.items():
        setattr(found, field, value)
    return found


def test_a_member_that_is_no_image_file_is_a_row(tmp_path: Path) -> None:
    bad = {
        "link.png": (info("link.png", stat.S_IFLNK | 0o777), b"/etc/passwd", "a link"),
        "fifo.png": (info("fifo.png", stat.S_IFIFO | 0o777), b"", "not a regular file"),
        "lzma.png": (info("lzma.png", compress_type=zipfile.ZIP_LZMA), png(1), "method 14"),
        "bzip2.png": (info("bzip2.png", compress_type=zipfile.ZIP_BZIP2), png(1), "method 12"),
        "big.png": (info("big.png", compress_type=zipfile.ZIP_DEFLATED), b"x" * 10_001, "the limit is 10000"),
        "none.png": (info("none.png"), b"", "is empty"),
    }
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.png", png(1))
        for entry, data, _ in bad.values():
            archive.writestr(entry, data)
        archive.writestr("c.png", png(3))
    found = rows(tmp_path / "a.zip")
    assert list(found) == ["a.png", *bad, "c.png"]
    for name, (_, _, reason) in bad.items():
        assert reason in str(found[name]), name
    assert (found["a.png"], found["c.png"]) == (png(1), png(3))


def test_encrypted_members_are_rows(tmp_path: Path) -> None:
    data = bytearray(packed({"a.png": png(1)}))
    directory = data.index(b"PK\1\2")
    data[directory + 8] |= 1
    assert "encrypted" in str(rows(written(tmp_path, bytes(data)))["a.png"])


def test_names_are_text_and_nothing_is_written(tmp_path: Path) -> None:
    names = ["/etc/cron.d/a.png", "../../a.png", "a\nb.png", "a\x1b[2J.png", "./x//y.png"]
    path = written(tmp_path, packed(dict.fromkeys(names, png(1))))
    before = sorted(tmp_path.rglob("*"))
    assert list(rows(path)) == ["etc/cron.d/a.png", "../../a.png", "a\nb.png", "a\x1b[2J.png", "x/y.png"]
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_no_zip_is_one_row(tmp_path: Path) -> None:
    whole = packed(GOOD)
    for data in (b"", b"this is no zip" * 100, whole[:-30], whole[: len(whole) // 2]):
        [(name, reason)] = rows(written(tmp_path, data)).items()
        assert name == ""
        assert "cannot be read" in str(reason)
    (tmp_path / "a.zip").unlink()
    os.mkfifo(tmp_path / "a.zip")
    assert "not a regular file" in str(rows(tmp_path / "a.zip")[""])


def test_zips_one_after_the_other_are_said_to_be_only_the_last(tmp_path: Path) -> None:
    found = rows(written(tmp_path, packed({"a.png": png(1)}) + packed({"b.png": png(2)})))
    assert found.pop("b.png") == png(2)
    assert "not in its directory" in str(found.pop(""))
    assert found == {}
    assert rows(written(tmp_path, b"#!/bin/sh\n" + packed({"b.png": png(2)}))) == {"b.png": png(2)}


def test_members_that_overlap_are_said(tmp_path: Path) -> None:
    """One kernel of data, named many times: a zip of kilobytes that unpacks to gigabytes."""
    data = packed({"a.png": b"x" * 9_000}, zipfile.ZIP_STORED)
    directory, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    entries = data[directory:end] * 100
    tail = bytearray(data[end:])
    tail[8:10] = tail[10:12] = (100).to_bytes(2, "little")
    tail[12:16] = len(entries).to_bytes(4, "little")
    path = written(tmp_path, data[:directory] + entries + bytes(tail))
    refused = [item for item in listed(path) if isinstance(item, RefusedItem)]
    assert "overlap" in refused[-1].reason


def test_a_directory_above_the_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zips, "DIRECTORY_BYTES", 70_000)
    path = written(tmp_path, packed({f"{number:040}.png": b"" for number in range(2000)}))
    assert "a directory of 180000 bytes where at most 70000 are" in str(rows(path)[""])


def test_an_archive_that_is_changed_after_it_was_listed_is_noticed(tmp_path: Path) -> None:
    path = written(tmp_path, packed(GOOD))
    [item, *_] = listed(path)
    os.utime(path, ns=(0, 0))
    with pytest.raises(RejectedImage, match="changed after it was listed"):
        item.read(LIMITS)
    path.unlink()
    with pytest.raises(RejectedImage, match="can no longer be read"):
        item.read(LIMITS)


def test_no_damage_to_an_archive_ends_the_listing_with_an_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    whole = packed(GOOD)
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(rng.integers(1, 4)):
            at = (
                int(rng.integers(len(data)))
                if rng.random() < 0.4
                else int(rng.integers(whole.index(b"PK\1\2"), len(data)))
            )
            data[at] = int(rng.choice([0, 1, 32, 127, 128, 255]))
        for item in listed(written(tmp_path, bytes(data))):
            item.id.encode()
            try:
                assert item.read(LIMITS) in GOOD.values()
            except RejectedImage as error:
                assert str(error).isprintable()
