"""A weights file whose pickle calls a function when it is opened: nothing is called."""

import os
import zipfile
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from diffood.errors import ExportError  # noqa: E402
from diffood.export.sources.weights import load_weights  # noqa: E402


class Call:
    """Pickles as a call of mkdir."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_a_call_in_an_archive_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2), "call": Call(tmp_path / "owned")}, tmp_path / "weights.pt")
    with pytest.raises(ExportError, match="a pickle can run code"):
        load_weights(tmp_path / "weights.pt")
    assert not (tmp_path / "owned").exists()


def test_a_call_in_a_bare_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(b"cposix\nmkdir\n(S'" + str(tmp_path / "owned").encode() + b"'\ntR.")
    with pytest.raises(ExportError, match="a pickle can run code"):
        load_weights(tmp_path / "weights.pth")
    assert not (tmp_path / "owned").exists()


def test_an_archive_that_expands_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in plain.namelist():
            bomb.writestr(name, plain.read(name) if "data/" not in name else bytes(2**26))
    with pytest.raises(ExportError, match=r"torch\.save packs nothing"):
        load_weights(tmp_path / "bomb.pt")
