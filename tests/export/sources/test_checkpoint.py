"""Checkpoints that are whole but not what they should be, and the wrappers that training scripts put around weights."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from refusals import assert_refused
from torch import nn

from diffood.errors import ExportError
from diffood.export.sources.checkpoint import load_checkpoint
from diffood.export.sources.weights import fit_weights

GOOD = {"0.weight": torch.ones(2, 3), "0.bias": torch.zeros(2)}
OTHER = {"0.weight": torch.full((2, 3), 5.0), "0.bias": torch.zeros(2)}


def module() -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(nn.Linear(3, 2))


def saved(value: object, path: Path) -> Path:
    torch.save(value, path / "model.pt")
    return path / "model.pt"


def written(data: bytes, path: Path) -> Path:
    path.write_bytes(data)
    return path


SAVED: list[object] = [
    GOOD,
    OrderedDict(GOOD),
    {"state_dict": GOOD, "epoch": 3},
    {"model": OTHER, "ema": GOOD},  # the average of the weights is what samples
    [GOOD, {"param_groups": []}, {}, 7, 1234, "1125-0900"],  # DiffOOD's train.ckpt
    {f"module.{name}": value for name, value in GOOD.items()},  # of DistributedDataParallel
    {name: nn.Parameter(value) for name, value in GOOD.items()},
    {name: value.half() for name, value in GOOD.items()},
    {"0.weight": torch.ones(2, 3, 1), "0.bias": torch.zeros(2)},  # a 1x1 convolution is a matrix
]


def test_weights_are_found_in_what_scripts_save(tmp_path: Path) -> None:
    for value in SAVED:
        model = module()
        fit_weights(model, load_checkpoint(saved(value, tmp_path)), "model.pt")
        assert model(torch.ones(1, 3)).tolist() == [[3.0, 3.0]], value
        assert model[0].weight.dtype == torch.float32


def fit(changes: dict[str, Any], path: Path) -> None:
    value = {name: tensor for name, tensor in (GOOD | changes).items() if tensor is not None}
    fit_weights(module(), load_checkpoint(saved(value, path)), "model.pt")


MISFITS: list[tuple[dict[str, Any], str]] = [
    ({"0.bias": None}, "'0.bias' is missing"),
    ({"0.bias": None, "0.weight": None, "x": torch.zeros(1)}, "'0.bias' and 1 more are missing; 'x' does not"),
    ({"1.weight": torch.zeros(1)}, "'1.weight' does not belong"),
    ({"0.weight": torch.ones(3, 2)}, r"'0.weight' .* shape \[3, 2\] where \[2, 3\] belongs"),
    ({"0.weight": torch.ones(2, 3, 3)}, r"shape \[2, 3, 3\]"),
    ({"0.weight": torch.full((2, 3), torch.nan)}, "'0.weight' .* NaN or infinity"),
    ({"0.bias": torch.tensor([1.0, -torch.inf])}, "'0.bias' .* NaN or infinity"),
    ({"0.bias": torch.zeros(2, dtype=torch.int64)}, "'0.bias' .* torch.int64"),
    ({"0.bias": torch.zeros(2, dtype=torch.complex64)}, "'0.bias' .* torch.complex64"),
    ({"0.bias": torch.zeros(2).to_sparse()}, "'0.bias' .*sparse_coo"),
    ({"0.bias": torch.zeros(2, device="meta")}, "'0.bias'|meta"),
    ({"step": 7}, "'step' .* is a int, not a tensor"),
    ({"\x1b[2J": torch.zeros(1)}, r"'\\x1b\[2J' does not belong"),
    ({"y" * 10**6: torch.zeros(1)}, "'y{100}' does not belong"),
]


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    assert_refused(ExportError, MISFITS, lambda changes: fit(changes, tmp_path))


NO_WEIGHTS: list[tuple[object, str]] = [
    (7, "holds a int"),
    ([], "holds a list"),
    ({}, "a dict without tensors by name"),
    ({0: torch.zeros(1)}, "a dict without tensors by name"),
    ({"state_dict": {}}, "a dict without tensors by name"),
    ({"epoch": 1}, "'epoch' .* is a int"),
]


def test_what_holds_no_weights_is_said(tmp_path: Path) -> None:
    assert_refused(ExportError, NO_WEIGHTS, lambda value: load_checkpoint(saved(value, tmp_path)))


NO_CHECKPOINTS = (b"", b"GIF89a" * 100, b"PK\x03\x04" + bytes(500))


def test_what_is_no_checkpoint_is_said(tmp_path: Path) -> None:
    for name in ("model.pt", "model.safetensors"):
        cases = [
            (data, "not readable as|holds more than tensors")
            for data in [b"", b"GIF89a" * 100, b"PK\x03\x04" + bytes(500)]
        ]
        assert_refused(ExportError, cases, lambda data, path=tmp_path / name: load_checkpoint(written(data, path)))


def test_a_truncated_checkpoint_is_said(tmp_path: Path) -> None:
    data = saved({"0.weight": torch.ones(64, 64)}, tmp_path).read_bytes()
    cases = [(data[: int(len(data) * keep)], "[cC]opy it again") for keep in (0.3, 0.9, 0.99)]
    assert_refused(ExportError, cases, lambda part: load_checkpoint(written(part, tmp_path / "part.pt")))


def test_a_checkpoint_of_old_torch_is_opened(tmp_path: Path) -> None:
    torch.save(GOOD, tmp_path / "model.pt", _use_new_zipfile_serialization=False)
    found = load_checkpoint(tmp_path / "model.pt")
    assert found.keys() == GOOD.keys()
    assert all(torch.equal(found[name], GOOD[name]) for name in GOOD)


def test_a_number_beside_the_state_dict_does_not_hide_it(tmp_path: Path) -> None:
    value = {"epoch": 3, "arch": "net", "state_dict": GOOD, "best": torch.tensor(0.7)}
    assert load_checkpoint(saved(value, tmp_path)).keys() == GOOD.keys()
