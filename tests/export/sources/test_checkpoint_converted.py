"""Checkpoints that hold more than tensors: the command that the refusal gives converts them."""

import argparse
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from torch import nn

from diffood.errors import ExportError
from diffood.export.sources.checkpoint import FoundWeights, open_checkpoint
from diffood.export.sources.weights import find_state

State = dict[str, torch.Tensor]
GOOD: State = {"0.weight": torch.ones(2, 3), "0.bias": torch.zeros(2)}


def find(path: Path) -> FoundWeights:
    return find_state(nn.Sequential(nn.Linear(3, 2)), open_checkpoint(path), "net")


class Script(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 2))
        self.load_state_dict({f"net.{name}": value for name, value in GOOD.items()})


def net() -> nn.Module:
    made = nn.Sequential(nn.Linear(3, 2))
    made.load_state_dict(GOOD)
    return made


# What is written, and what the message says it is.
MORE_THAN_TENSORS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a module": (lambda path: torch.save(net(), path), "holds more than tensors.*it names .*container.Sequential"),
    "modules by key, as of ultralytics": (
        lambda path: torch.save({"epoch": -1, "model": None, "ema": net()}, path), "more than tensors"),
    "a namespace next to": (
        lambda path: torch.save({"model": GOOD, "args": argparse.Namespace(lr=1), "losses": [0.5]}, path),
        "more than tensors.*Namespace"),
    "a score of numpy's next to": (
        lambda path: torch.save({"net": GOOD, "acc": np.float64(0.9), "epoch": 4}, path),
        "more than tensors.*numpy"),
    "TorchScript": (lambda path: torch.jit.save(torch.jit.script(Script()), path), "is a TorchScript archive"),
}  # fmt: skip


def assert_converted_by_the_command(
    write: Callable[[Path], object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file is refused with a command that makes one of it which is read."""
    path = tmp_path / "the model's.pt2"
    write(path)
    with pytest.raises(ExportError, match=message) as refused:
        find(path)
    command = str(refused.value)[str(refused.value).index("python -c") :]
    _, _, program, *files = shlex.split(command)
    assert files == [str(path), str(tmp_path / "the model's-weights.pt")]
    monkeypatch.setattr(sys, "argv", ["-c", *files])
    exec(program, {})
    found = find(tmp_path / "the model's-weights.pt").tensors
    assert all(torch.equal(found[name], GOOD[name]) for name in GOOD)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_the_command_a_refusal_gives_converts_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    for kind, (write, message) in MORE_THAN_TENSORS.items():
        with subtests.test(kind=kind):
            assert_converted_by_the_command(write, message, tmp_path, monkeypatch)


def test_a_module_of_the_script_that_saved_it_is_converted_with_the_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.pt"
    script = "from torch import nn\nclass Net(nn.Linear): pass\n"
    main: dict[str, Any] = {"__name__": "__main__"}
    exec(script, main)
    with monkeypatch.context() as patched:
        patched.setattr(sys.modules["__main__"], "Net", main["Net"], raising=False)
        torch.save(nn.Sequential(main["Net"](3, 2)), path)
    with pytest.raises(
        ExportError, match=r"it names __main__\.Net, .*in the folder of the script.*for SCRIPT"
    ) as refused:
        find(path)
    _, _, program, *files = shlex.split(str(refused.value)[str(refused.value).index("python -c") :])
    (tmp_path / "train.py").write_text(script)
    command = [sys.executable, "-c", program.replace("SCRIPT", "train"), *files]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=120)
    assert find(tmp_path / "model-weights.pt").tensors.keys() == GOOD.keys()


@pytest.mark.slow
def test_the_command_for_an_exported_program_converts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(path: Path) -> None:
        torch.export.save(torch.export.export(net(), (torch.ones(2, 3),)), path)

    assert_converted_by_the_command(write, "an exported program", tmp_path, monkeypatch)
