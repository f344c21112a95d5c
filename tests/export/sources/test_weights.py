"""Weights: where they are found in a file, and what does not fit said in a few words."""

import itertools
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
from refusals import assert_refused
from safetensors.torch import save_file

from diffood.errors import ExportError
from diffood.export.sources.checkpoint import load_checkpoint
from diffood.export.sources.weights import load_state


def linear(seed: int = 0, outputs: int = 2) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Linear(3, outputs)


def test_a_state_dict_is_found_where_training_scripts_put_it(tmp_path: Path) -> None:
    state = linear().state_dict()
    wrapped = [
        state,
        {"state_dict": state, "epoch": 3},
        {"model": state, "optimizer": {"lr": 0.1}},
        {"model_state_dict": state},
        {f"module.{name}": tensor for name, tensor in state.items()},
        {"state_dict": {f"module._orig_mod.{name}": tensor for name, tensor in state.items()}},
    ]
    for value, ending in itertools.product(wrapped, (".pt", ".pth", ".bin")):
        path = tmp_path / f"weights{ending}"
        torch.save(value, path)
        found = load_checkpoint(path)
        assert found.keys() == state.keys(), value
        assert all(torch.equal(found[name], state[name]) for name in state), value


MISFITS: list[tuple[dict[str, torch.Tensor], str]] = [
    ({"weight": torch.zeros(2, 3)}, "'bias' is missing\\. Give weights of this network"),
    (
        {"weight": torch.zeros(5, 3), "bias": torch.zeros(2)},
        r"'weight' has the shape \[5, 3\] where \[2, 3\] belongs",
    ),
    ({"weight": torch.zeros(2, 3), "bias": torch.zeros(2), "x": torch.zeros(1)}, "'x' does not belong"),
    ({"a.b": torch.zeros(1)}, "'bias' and 1 more are missing; 'a.b' does not belong"),
]


def test_weights_that_do_not_fit_are_explained(tmp_path: Path) -> None:
    def load(state: dict[str, torch.Tensor]) -> None:
        save_file(state, tmp_path / "weights.safetensors")
        load_state(linear(), load_checkpoint(tmp_path / "weights.safetensors"), "weights.safetensors", "net")

    cases = [(state, f"weights.safetensors does not fit net: .*{message}") for state, message in MISFITS]
    assert_refused(ExportError, cases, load)
