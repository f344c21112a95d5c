"""A checkpoint whose pickle names a function to call: it is refused, with the way to convert what one trusts."""

import os
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from diffood.errors import ExportError
from diffood.export.sources.checkpoint import open_checkpoint


class Touch:
    """Makes a folder when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.place),)


def test_no_code_of_a_checkpoint_runs(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for inside in ["alone", "next to weights"]:
        with subtests.test(inside=inside):
            attack = Touch(tmp_path / "owned")
            torch.save(attack if inside == "alone" else {"x": torch.zeros(1), "y": attack}, tmp_path / "model.pt")
            with pytest.raises(ExportError, match=r"mkdir.*If you trust the file, convert it once.*: python -c"):
                open_checkpoint(tmp_path / "model.pt")
            assert not (tmp_path / "owned").exists()


def test_a_whole_pickled_module_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pt")
    with pytest.raises(ExportError, match="holds more than tensors"):
        open_checkpoint(tmp_path / "model.pt")


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_torchscript_archive_is_refused(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.ReLU()), str(tmp_path / "model.pt"))
    with pytest.raises(ExportError, match="is a TorchScript archive"):
        open_checkpoint(tmp_path / "model.pt")


def test_a_bare_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"cposix\nmkdir\n(S'" + str(tmp_path / "owned").encode() + b"'\ntR.")
    with pytest.raises(ExportError, match="holds more than tensors"):
        open_checkpoint(tmp_path / "model.pt")
    assert not (tmp_path / "owned").exists()
