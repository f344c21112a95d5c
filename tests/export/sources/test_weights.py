"""Weights that are loaded into a module: what does not fit said in a few words."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
from refusals import assert_refused
from safetensors.torch import save_file

from diffood.errors import ExportError
from diffood.export.sources.checkpoint import open_checkpoint
from diffood.export.sources.weights import find_state, load_state


class Masked(torch.nn.Module):
    """A linear layer with a mask, whose -Infinity is what it should be."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = torch.nn.Linear(3, 2)
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))


GOOD = {"fc.weight": torch.ones(2, 3), "fc.bias": torch.zeros(2), "mask": torch.tensor([0.0, -torch.inf])}

MISFITS: list[tuple[dict[str, torch.Tensor | None], str]] = [
    ({"fc.bias": None}, "does not fit net: 'fc.bias' is missing"),
    ({"fc.weight": torch.zeros(5, 3)}, r"'fc.weight' has the shape \[5, 3\] where \[2, 3\] belongs"),
    ({"x": torch.zeros(1)}, "does not fit net: 'x' does not belong"),
    ({"fc.weight": torch.full((2, 3), torch.nan)}, "'fc.weight' in weights.safetensors holds NaN"),
    ({"fc.bias": torch.tensor([torch.inf, 0])}, "'fc.bias' in weights.safetensors holds Infinity"),
    ({"fc.bias": torch.tensor([-torch.inf, 0])}, "'fc.bias' in weights.safetensors holds Infinity"),
    ({"mask": torch.tensor([torch.nan, 0])}, "'mask' in weights.safetensors holds NaN"),
    ({"fc.weight": torch.zeros(2, 3, dtype=torch.int8)}, "'fc.weight' .* is torch.int8, where net has floats"),
]


def load(changes: dict[str, torch.Tensor | None], path: Path) -> torch.nn.Module:
    model = Masked()
    save_file({name: value for name, value in (GOOD | changes).items() if value is not None}, path)
    load_state(model, find_state(model, open_checkpoint(path), "net"), path.name, "net")
    return model


def test_weights_that_do_not_fit_are_explained(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    assert torch.equal(load({}, path).state_dict()["fc.weight"], GOOD["fc.weight"])
    assert_refused(ExportError, MISFITS, lambda changes: load(changes, path))
