"""Attack: files of weights with more names than memory for them, and old ones whose bytes are not there."""

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from diffood.errors import ExportError
from diffood.export.sources.checkpoint import open_checkpoint
from diffood.export.sources.json_config import read_config

LONG_TEXT = b"\x80\x02X" + struct.pack("<I", 13 * 2**20) + bytes(13 * 2**20) + b"."


def safetensors(header: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header


def many_tensors() -> bytes:
    entry = b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    return safetensors(b"{" + b",".join(entry % index for index in range(100_001)) + b"}")


def zipped(names: bytes, *, directory: int = 0) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("model/data.pkl", names)
        for index in range(directory):
            archive.writestr(f"model/data/{index:060000}", b"")
    return data.getvalue()


def old_file(tensors: object) -> bytes:
    """As torch before 1.6 wrote it."""
    data = io.BytesIO()
    torch.save(tensors, data, _use_new_zipfile_serialization=False)
    return data.getvalue()


def listing(data: bytes, keys: Callable[[list[str]], list[str]]) -> bytes:
    """An old file that lists other keys of storages than it has, and so the bytes of others."""
    file = io.BytesIO(data)
    for _ in range(3):
        pickle.load(file)
    start = data.index(b"\x80\x02", data.rindex(b"tensor_v2"))
    found = pickle.loads(data[start:])
    return data[:start] + pickle.dumps(keys(found), 2) + data[start + len(pickle.dumps(found, 2)) :]


def test_files_with_more_names_than_any_model_are_refused(tmp_path: Path, subtests: pytest.Subtests) -> None:
    attacks = {
        "a long header": (safetensors(b"{" + b" " * 2**24 + b"}"), "take 16777218 bytes where at most 16777216"),
        "many tensors": (many_tensors(), "has 100001 tensors where at most 100000 are allowed; save the model alone"),
        "a pickle": (zipped(LONG_TEXT), "The names in model.pt take more than 12582912 bytes"),
        "a directory": (zipped(b"", directory=280), "where at most 16777216 are allowed"),
        "an old file": (old_file({})[:-30] + LONG_TEXT, "The names in model.pt take more than 12582912 bytes"),
    }
    for name, (data, said) in attacks.items():
        with subtests.test(name=name):
            (tmp_path / "model.pt").write_bytes(data)
            with pytest.raises(ExportError) as caught:
                open_checkpoint(tmp_path / "model.pt")
            assert said in str(caught.value)


def test_an_old_file_without_the_bytes_of_a_storage_is_refused(tmp_path: Path, subtests: pytest.Subtests) -> None:
    tensors = {"a": torch.arange(5.0), "b": torch.arange(7)}
    data = old_file(tensors)
    (tmp_path / "model.pt").write_bytes(data)
    [found] = open_checkpoint(tmp_path / "model.pt").saved.named
    assert all(torch.equal(found.tensors[name], value) for name, value in tensors.items())
    for name, keys in {"none": lambda _: [], "the first alone": lambda found: found[:1]}.items():
        with subtests.test(name=name):
            (tmp_path / "model.pt").write_bytes(listing(data, keys))
            with pytest.raises(ExportError, match=r"model.pt lists no bytes for [12] of its 2 storages; copy it again"):
                open_checkpoint(tmp_path / "model.pt")


def test_a_config_that_is_no_small_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    for data in (json.dumps({"a": [{}] * 600_000}).encode(), b"[" * 100_000):
        path.write_bytes(data)
        with pytest.raises(ExportError, match=r"lists and objects where at most|is not JSON"):
            read_config(path, 2**25)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ExportError, match="is missing or no regular file"):
        read_config(path)
