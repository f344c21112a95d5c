"""Weight files: what is opened, what is found in them, and what does not fit said in a few words."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
from safetensors.torch import save_file  # noqa: E402

from diffood.errors import ExportError  # noqa: E402
from diffood.export.sources.weights import fill, hash_file, load_weights  # noqa: E402


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
    found = load_weights(path)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)


def test_filling_gives_the_files_hash(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(linear().state_dict(), path)
    model = linear(seed=1)
    assert fill(model, path, "net") == hash_file(path)
    assert torch.equal(model.weight, linear().weight)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"weight": torch.zeros(2, 3)}, "it has no bias."),
        ({"weight": torch.zeros(5, 3), "bias": torch.zeros(2)}, r"size mismatch for weight: \[5, 3\] where \[2, 3\]"),
        ({"weight": torch.zeros(2, 3), "bias": torch.zeros(2), "x": torch.zeros(1)}, "x are unknown there"),
        ({"a.b": torch.zeros(1)}, "it has no weight and 1 more; a.b are unknown there"),
    ],
)
def test_weights_that_do_not_fit_are_explained(tmp_path: Path, state: dict, message: str) -> None:
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(ExportError, match=f"weights.safetensors does not fit net: .*{message}"):
        fill(linear(), tmp_path / "weights.safetensors", "net")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.pt", None, "No weights at"),
        ("weights.h5", b"\x89HDF", "is no .safetensors file"),
        ("weights.safetensors", b"\xff" * 20, "is not readable as safetensors"),
        ("weights.pt", b"PK\x03\x04 cut off", "is not readable as torch.save writes it"),
        ("weights.pth", b"", "is not readable as torch.save writes it"),
    ],
)
def test_a_file_that_is_none_is_explained(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ExportError, match=message):
        load_weights(tmp_path / name)


@pytest.mark.parametrize(("content", "message"), [([1, 2], "holds a list"), ({"epoch": 3}, "but epoch")])
def test_a_file_without_a_state_dict_is_explained(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(ExportError, match=message):
        load_weights(tmp_path / "weights.pt")


def test_a_whole_module_is_refused_with_the_way_to_convert_it(tmp_path: Path) -> None:
    torch.save(linear(), tmp_path / "model.pt")
    with pytest.raises(
        ExportError, match=r"holds .*Linear, which is more .* a pickle can run code.*torch.save\(model.state_dict\(\)"
    ):
        load_weights(tmp_path / "model.pt")
