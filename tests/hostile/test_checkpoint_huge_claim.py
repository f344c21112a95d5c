"""Checkpoints that claim more than they hold: a tensor of terabytes in a few bytes, storages past their end, a bomb."""

import zipfile
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from diffood.errors import ExportError
from diffood.export.sources.checkpoint import WantedTensors, find_weights, open_checkpoint


def test_a_tensor_repeated_by_its_strides_is_refused(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(1).expand(10**12)}, tmp_path / "model.pt")
    with pytest.raises(ExportError, match=r"'x' .* claims the shape \[1000000000000\]"):
        find_weights(open_checkpoint(tmp_path / "model.pt"), WantedTensors({"x": (1,)}), "net")


def rewrite(path: Path, old: bytes, new: bytes, compression: int = zipfile.ZIP_STORED) -> None:
    """Write the zip again, with `new` for `old` in its pickle."""
    with zipfile.ZipFile(path) as archive:
        files = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data.replace(old, new) if name.endswith("data.pkl") else data)


def test_a_storage_past_the_end_of_the_file_is_refused(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(200)}, tmp_path / "model.pt")
    rewrite(tmp_path / "model.pt", b"K\xc8", b"M\xc8\x00")  # the same number in another writing still loads
    assert len(open_checkpoint(tmp_path / "model.pt").saved.named[0].tensors["x"]) == 200
    rewrite(tmp_path / "model.pt", b"M\xc8\x00", b"M\xff\xff")  # 65535 of the 200 values
    with pytest.raises(ExportError):
        open_checkpoint(tmp_path / "model.pt")


def test_a_compressed_checkpoint_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(1000)}, tmp_path / "model.pt")
    rewrite(tmp_path / "model.pt", b"", b"", zipfile.ZIP_DEFLATED)
    with pytest.raises(ExportError, match="is compressed, which"):
        open_checkpoint(tmp_path / "model.pt")


def test_an_archive_that_claims_several_disks_is_refused(tmp_path: Path) -> None:
    """Looking whether it is one fails."""
    torch.save({"x": torch.zeros(1)}, tmp_path / "model.pt")
    data = (tmp_path / "model.pt").read_bytes()
    locator = b"PK\6\7" + (1).to_bytes(4, "little") + bytes(8) + (2).to_bytes(4, "little")
    end = data.rindex(b"PK\5\6")
    (tmp_path / "model.pt").write_bytes(data[:end] + locator + data[end:])
    with pytest.raises(ExportError, match=r"model.pt is a damaged archive \(.*disks.*\); copy it again"):
        open_checkpoint(tmp_path / "model.pt")
