"""Weights: where they are found in a file, and what does not fit said in a few words."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
from safetensors.torch import save_file

from diffood.errors import ExportError
from diffood.export.sources.checkpoint import load_checkpoint
from diffood.export.sources.weights import load_state


def linear(seed: int = 0, outputs: int = 2) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Linear(3, outputs)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "optimizer": {"lr": 0.1}},
        lambda state: {"model_state_dict": state},
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {"state_dict": {f"module._orig_mod.{name}": tensor for name, tensor in state.items()}},
    ],
)
@pytest.mark.parametrize("ending", [".pt", ".pth", ".bin"])
def test_a_state_dict_is_found_where_training_scripts_put_it(tmp_path: Path, wrap: object, ending: str) -> None:
    state = linear().state_dict()
    path = tmp_path / f"weights{ending}"
    torch.save(wrap(state), path)  # type: ignore[operator]
    found = load_checkpoint(path)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"weight": torch.zeros(2, 3)}, "'bias' is missing\\. Give weights of this network"),
        (
            {"weight": torch.zeros(5, 3), "bias": torch.zeros(2)},
            r"'weight' has the shape \[5, 3\] where \[2, 3\] belongs",
        ),
        ({"weight": torch.zeros(2, 3), "bias": torch.zeros(2), "x": torch.zeros(1)}, "'x' does not belong"),
        ({"a.b": torch.zeros(1)}, "'bias' and 1 more are missing; 'a.b' does not belong"),
    ],
)
def test_weights_that_do_not_fit_are_explained(tmp_path: Path, state: dict, message: str) -> None:
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(ExportError, match=f"weights.safetensors does not fit net: .*{message}"):
        load_state(linear(), load_checkpoint(tmp_path / "weights.safetensors"), "weights.safetensors", "net")
