"""Attack: shards of nothing: streams that unpack to no byte, padding, and folders without end before the next image."""

import bz2
import gzip
import io
import lzma
import os
import tarfile
from pathlib import Path

import pytest
from tars import END, member, png, tar

from diffood.runtime.inputs import archives
from diffood.runtime.inputs.archives import list_shard
from diffood.runtime.inputs.forward import ForwardFile, decompressed
from diffood.runtime.inputs.reading import ReadOptions

EMPTY = {"gzip": (gzip.compress, 100_000), "bzip2": (bz2.compress, 200_000), "xz": (lzma.compress, 100_000)}
SHARD = tar([member("a.png", png(1))])


def reasons(path: Path) -> list[str]:
    return [str(getattr(item, "reason", item.id)) for item in list_shard(str(path), "s", ReadOptions())]


def test_streams_that_unpack_to_nothing_are_counted(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for kind, (compress, many) in EMPTY.items():
        for padded, filling in ((False, compress(b"") * many), (True, bytes(2**21))):
            if padded and kind != "gzip":  # which end at the first zeros
                continue
            with subtests.test(kind=kind, padded=padded):
                (tmp_path / "s.tgz").write_bytes(compress(SHARD[:512]) + filling + compress(SHARD[512:]))
                assert "more than 1048576 bytes that unpack to nothing" in reasons(tmp_path / "s.tgz")[-1]


def test_files_that_cannot_be_compressed_are_read_whole(subtests: pytest.Subtests) -> None:
    noise = os.urandom(3 * 2**20)
    for kind, (compress, _) in EMPTY.items():
        for parts, data in ((1, compress(noise)), (48, b"".join(compress(noise[at : at + 2**16]) for at in PARTS))):
            with subtests.test(kind=kind, parts=parts):
                unpacked = ForwardFile(decompressed(ForwardFile(io.BytesIO(data))))
                assert b"".join(iter(lambda file=unpacked: file.read(5000), b"")) == noise


PARTS = range(0, 3 * 2**20, 2**16)


def test_members_that_are_no_items_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    monkeypatch.setattr(archives, "MOST_EXTRA", 500)
    folder = member("f/", kind=tarfile.DIRTYPE)
    for kind, header in (("folder", folder), ("hidden", member(".x", b"")), ("label", member("a.cls", b""))):
        with subtests.test(kind=kind):
            (tmp_path / "s.tar").write_bytes(SHARD[:-1024] + header * 700 + END)
            assert "more than 500 members that are folders, hidden or labels" in reasons(tmp_path / "s.tar")[-1]
            (tmp_path / "s.tar").write_bytes((member("a.png", png(1)) + header * 90) * 20 + END)
            assert not any("folders, hidden" in reason for reason in reasons(tmp_path / "s.tar"))
