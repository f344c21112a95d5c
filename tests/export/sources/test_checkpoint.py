"""Checkpoints that are whole but not what they should be, and what training scripts put around weights."""

import itertools
import json
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from refusals import assert_refused
from safetensors.torch import save_file
from torch import nn

from diffood.errors import ExportError
from diffood.export.sources.checkpoint import FoundWeights, open_checkpoint
from diffood.export.sources.weights import find_state, fit_weights, load_state

State = dict[str, torch.Tensor]
GOOD: State = {"0.weight": torch.ones(2, 3), "0.bias": torch.zeros(2)}
OTHER: State = {"0.weight": torch.full((2, 3), 5.0), "0.bias": torch.zeros(2)}


def module() -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(nn.Linear(3, 2))


def saved(value: object, path: Path) -> Path:
    torch.save(value, path / "model.pt")
    return path / "model.pt"


def written(data: bytes, path: Path) -> Path:
    path.write_bytes(data)
    return path


def find(path: Path, model: nn.Module | None = None) -> FoundWeights:
    return find_state(model or module(), open_checkpoint(path), "net")


def under(prefix: str, state: State = GOOD) -> State:
    return {prefix + name: value for name, value in state.items()}


NORM = {
    "1.running_mean": torch.full((2,), 7.0),
    "1.running_var": torch.ones(2),
    "1.num_batches_tracked": torch.tensor(9),
}
WITH_NORM = GOOD | {"1.weight": torch.ones(2), "1.bias": torch.zeros(2)} | NORM
OTHER_NORM = {name: value + 1 for name, value in WITH_NORM.items()}

# What is saved, and the file's own word for where the weights are; "" where nothing has to be said.
SAVED: list[tuple[object, str]] = [
    (GOOD, ""),
    (OrderedDict(GOOD), ""),
    ({name: nn.Parameter(value) for name, value in GOOD.items()}, ""),
    ({name: value.half() for name, value in GOOD.items()}, ""),
    ({"0.weight": torch.ones(2, 3, 1), "0.bias": torch.zeros(2)}, ""),  # a 1x1 convolution is a matrix
    (GOOD | {"epoch": 7, "arch": "net"}, ""),
    ([GOOD, {"param_groups": []}, {}, 7, 1234, "1125-0900"], ""),  # DiffOOD's train.ckpt
    ([OTHER, {"param_groups": []}, 7, 1234, GOOD], "averaged weights are taken, '4', not '0'"),  # ermongroup/ddim
    ((GOOD, {"param_groups": []}), ""),
    *(
        ({key: GOOD, "epoch": 3, "acc": 0.9, "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}}}, "")
        for key in (
            "state_dict", "model_state_dict", "model", "net", "network", "params", "weights", "model_state", "module",
            "my_own_key", "generator",
        )
    ),
    ({"checkpoint": {"trainer": {"model": GOOD}}}, ""),
    *(
        (under(prefix), "")
        for prefix in (
            "module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod.", "module.module.",
            "_fsdp_wrapped_module.", "_forward_module.", "model.", "net.", "model.net.", "model._orig_mod.module.",
            "encoder.model.",
        )
    ),
    (under("0._fsdp_wrapped_module.", {"weight": GOOD["0.weight"], "bias": GOOD["0.bias"]}), ""),
    ({"0._checkpoint_wrapped_module._orig_mod.weight": GOOD["0.weight"], "0.bias": GOOD["0.bias"]}, ""),
    ({"state_dict": under("model.") | {"criterion.weight": torch.ones(9), "n_averaged": torch.tensor(3)}},
     "'criterion.weight' left out"),
    ({"state_dict": GOOD | {"loss_fn.weight": torch.ones(2), "train_acc.total": torch.ones(2)}},
     "'loss_fn.weight' and 1 more left out"),
    ({"state_dict": under("model.") | under("criterion.model.")}, ""),  # one network, registered twice
    # Averages, as they are saved by timm, MAE, BasicSR, ultralytics, Lightning, torchvision, lucidrains, score_sde.
    *(
        ({plain: OTHER, averaged: GOOD}, f"averaged weights are taken, '{averaged}', not '{plain}'")
        for plain, averaged in (
            ("state_dict", "state_dict_ema"), ("model", "model_ema"), ("params", "params_ema"), ("model", "ema"),
            ("state_dict", "ema_state_dict"), ("net", "netEMA"), ("model", "swa_model"), ("model", "averaged_model"),
            ("model", "ema_0.9999"), ("G", "G_ema"), ("model", "shadow"),
        )
    ),
    ({"model_ema": GOOD, "model": OTHER}, "averaged weights are taken, 'model_ema', not 'model'"),
    ({"ema": GOOD}, "averaged weights are taken, 'ema'"),
    (OTHER | under("ema.module."), "averaged weights are taken, 'ema', not the plain ones"),
    ({"model": OTHER, "model_ema": {"n_averaged": torch.tensor(2)} | under("module.")},
     "averaged weights are taken, 'model_ema', not 'model'"),
    ({"state_dict": under("model.", OTHER) | under("ema_model.module.") | {"ema_model.n_averaged": torch.tensor(2)}},
     "averaged weights are taken, 'state_dict.ema_model', not 'state_dict.model'"),
    ({"model": under("model.", OTHER), "ema": under("online_model.model.", OTHER) | under("ema_model.model.")
      | {"initted": torch.tensor(True), "step": torch.tensor(5)}}, "averaged weights are taken, 'ema.ema_model.model'"),
    ({"model": OTHER, "ema": {"decay": 0.9, "shadow_params": list(GOOD.values()), "collected_params": None}},
     "averaged weights are taken, 'ema.shadow_params', not 'model'"),
    ({"model": GOOD, "ema": {"shadow_params": [torch.ones(4)]}}, "averages 'ema.shadow_params' are of other shapes"),
    ({"callbacks": {"EMA": {"ema_state_dict": under("model.")}}, "state_dict": under("model.", OTHER)},
     "taken, 'callbacks.EMA.ema_state_dict.model', not 'state_dict.model'"),
    # CompVis' latent diffusion
    ({"state_dict": under("model.diffusion_model.", OTHER) | {
        "model_ema.decay": torch.tensor(0.9), "first_stage_model.conv.weight": torch.ones(2),
        "model_ema.diffusion_model0weight": GOOD["0.weight"], "model_ema.diffusion_model0bias": GOOD["0.bias"]}},
     "averaged weights are taken, 'state_dict.model_ema', not 'state_dict.model.diffusion_model'"),
    ({"ema": {"step": 4}, "model": GOOD}, ""),
    # mmengine and Lightning's WeightAveraging keep the averages in state_dict and the plain weights elsewhere.
    ({"meta": {"mmengine_version": "0.10"}, "state_dict": GOOD, "ema_state_dict": under("module.", OTHER)},
     "averaged weights are taken, 'state_dict', not 'ema_state_dict'"),
    ({"state_dict": under("net."), "current_model_state": under("net.", OTHER), "averaging_state": {}},
     "averaged weights are taken, 'state_dict.net', not 'current_model_state.net'"),
    ({"model": GOOD, "best_model": OTHER}, "'model' is taken; 'best_model' fits too"),
]  # fmt: skip


def test_weights_are_found_in_what_scripts_save(tmp_path: Path) -> None:
    for value, said in SAVED:
        model, found = module(), find(saved(value, tmp_path))
        fit_weights(model, found, "model.pt")
        assert model(torch.ones(1, 3)).tolist() == [[3.0, 3.0]], value
        assert model[0].weight.dtype == torch.float32
        assert (said in found.notes[0]) if said else not found.notes, (value, found.notes)


def test_averages_of_parameters_take_statistics_from_the_plain_network(tmp_path: Path) -> None:
    average = {name: value for name, value in OTHER_NORM.items() if "running" not in name and "num_b" not in name}
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    for ema in (average, {"shadow_params": list(average.values())}):
        found = find(saved({"model": WITH_NORM, "ema": ema}, tmp_path), model)
        assert torch.equal(found.tensors["0.weight"], OTHER_NORM["0.weight"])
        assert torch.equal(found.tensors["1.running_mean"], WITH_NORM["1.running_mean"])
    with pytest.raises(ExportError, match=r"'1\.running_mean' and 1 more are missing"):
        find(saved({"ema": average}, tmp_path), model)


def test_counters_of_batches_may_be_missing_as_in_old_files(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    old = {name: value for name, value in WITH_NORM.items() if not name.endswith("num_batches_tracked")}
    load_state(model, find(saved(old, tmp_path), model), "model.pt", "net")
    assert torch.equal(model[1].running_mean, WITH_NORM["1.running_mean"])


def test_a_network_inside_a_module_takes_weights_saved_without_it(tmp_path: Path) -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = nn.Sequential(nn.Linear(3, 2))

    assert find(saved(GOOD, tmp_path), Outer()).tensors.keys() == {"backbone.0.weight", "backbone.0.bias"}


def fit(changes: dict[str, Any], path: Path) -> None:
    value = {name: tensor for name, tensor in (GOOD | changes).items() if tensor is not None}
    fit_weights(module(), find(saved(value, path)), "model.pt")


MISFITS: list[tuple[dict[str, Any], str]] = [
    ({"0.bias": None}, "'0.bias' is missing"),
    ({"0.bias": 7}, "'0.bias' is missing"),
    ({"0.bias": None, "0.weight": None, "x": torch.zeros(1)}, "'0.bias' and 1 more are missing; 'x' does not"),
    ({"1.weight": torch.zeros(1)}, "'1.weight' does not belong"),
    ({"head.weight": torch.zeros(1)}, "'head.weight' does not belong"),
    ({"0.weight": torch.ones(3, 2)}, r"'0.weight' .* shape \[3, 2\] where \[2, 3\] belongs"),
    ({"0.weight": torch.ones(2, 3, 3)}, r"shape \[2, 3, 3\]"),
    ({"0.weight": torch.full((2, 3), torch.nan)}, "'0.weight' in model.pt holds NaN"),
    ({"0.bias": torch.tensor([1.0, -torch.inf])}, "'0.bias' in model.pt holds Infinity"),
    ({"0.bias": torch.zeros(2, dtype=torch.int64)}, "'0.bias' .* torch.int64"),
    ({"0.bias": torch.zeros(2, dtype=torch.complex64)}, "'0.bias' .* torch.complex64"),
    ({"0.bias": torch.zeros(2).to_sparse()}, "'0.bias' .*sparse_coo"),
    ({"0.bias": torch.zeros(2, device="meta")}, "'0.bias'|meta"),
    ({"\x1b[2J": torch.zeros(1)}, r"'\\x1b\[2J' does not belong"),
    ({"y" * 10**6: torch.zeros(1)}, "'y{100}' does not belong"),
]


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    assert_refused(ExportError, MISFITS, lambda changes: fit(changes, tmp_path))


def test_what_is_wrong_under_a_prefix_is_named_without_it(tmp_path: Path) -> None:
    deeper = under("module.", GOOD | {"2.weight": torch.ones(2)})
    with pytest.raises(ExportError, match=r"does not fit net: '2\.weight' does not belong"):
        find(saved({"state_dict": deeper}, tmp_path))


def test_two_networks_that_fit_alike_are_not_chosen_between(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="2 networks that fit, such as 'student' and 'teacher': save the one"):
        find(saved({"student": GOOD, "teacher": OTHER}, tmp_path))


NO_WEIGHTS: list[tuple[object, str]] = [
    (7, "holds a int"),
    ([], "holds a list"),
    ({}, "a dict without tensors by name"),
    ({0: torch.zeros(1)}, "a dict without tensors by name"),
    ({"state_dict": {}}, "a dict without tensors by name"),
    ({"epoch": 1}, "a dict without tensors by name"),
]


def test_what_holds_no_weights_is_said(tmp_path: Path) -> None:
    assert_refused(ExportError, NO_WEIGHTS, lambda value: find(saved(value, tmp_path)))


def test_dicts_in_circles_end(tmp_path: Path) -> None:
    circle: dict[str, Any] = {"model": GOOD}
    circle["self"] = circle
    assert find(saved(circle, tmp_path)).tensors.keys() == GOOD.keys()


FOREIGN: list[tuple[bytes, str]] = [
    (b"", "not readable as|holds more than tensors"),
    (b"GIF89a" * 100, "not readable as|holds more than tensors"),
    (b"PK\x03\x04" + bytes(500), "not readable as|holds more than tensors"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n", "a pointer of Git LFS.*git lfs pull"),
    (b"<!DOCTYPE html><html></html>", "a web page: the download failed"),
    (b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5, as Keras.*onnx:FILE"),
    (b"\x1f\x8b\x08" + bytes(99), "compressed with gzip; unpack"),
]


def test_what_is_no_checkpoint_is_said(tmp_path: Path) -> None:
    for name in ("model.pt", "model.safetensors"):
        assert_refused(ExportError, FOREIGN, lambda data, path=tmp_path / name: find(written(data, path)))


def test_what_is_elsewhere_is_said(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\x08\x0a")
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / ".metadata").touch()
    saved(GOOD, tmp_path)
    cases = [
        ("none.pt", "No weights at .*none.pt; give a .safetensors file"),
        ("", "which is a folder; give a file of it: model.pt"),
        ("shards", "a folder of torch.distributed.checkpoint; join it first: .*dcp_to_torch"),
        ("model.onnx", "an ONNX graph.*give it as onnx:"),
    ]
    assert_refused(ExportError, cases, lambda name: find(tmp_path / name))


def test_a_truncated_checkpoint_is_said(tmp_path: Path) -> None:
    data = saved({"0.weight": torch.ones(64, 64)}, tmp_path).read_bytes()
    cases = [(data[: int(len(data) * keep)], "[cC]opy it again") for keep in (0.3, 0.9, 0.99)]
    assert_refused(ExportError, cases, lambda part: find(written(part, tmp_path / "part.pt")))


def save_old(state: State, path: Path) -> None:
    torch.save(state, path, _use_new_zipfile_serialization=False)


WRITERS: list[Callable[[State, Path], Any]] = [torch.save, save_old, save_file]


def test_the_contents_and_not_the_ending_say_what_a_file_is(tmp_path: Path) -> None:
    for write, ending in itertools.product(WRITERS, ("safetensors", "pt", "bin", "pth.tar", "ckpt")):
        write(GOOD, tmp_path / f"model.{ending}")
        found = find(tmp_path / f"model.{ending}").tensors
        assert all(torch.equal(found[name], GOOD[name]) for name in GOOD), (write, ending)


def shards(folder: Path, ending: str = "safetensors") -> Path:
    """The index of two shards of GOOD."""
    names = {name: f"model-{i:05}-of-00002.{ending}" for i, name in enumerate(GOOD, 1)}
    for name, shard in names.items():
        (save_file if ending == "safetensors" else torch.save)({name: GOOD[name]}, folder / shard)
    index = folder / f"model.{ending}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": names}))
    return index


def test_shards_are_joined(tmp_path: Path) -> None:
    for ending in ("safetensors", "bin"):
        checkpoint = open_checkpoint(shards(tmp_path, ending))
        assert find_state(module(), checkpoint, "net").tensors.keys() == GOOD.keys()
        assert len(checkpoint.files) == 2


INDICES: list[tuple[object, str]] = [
    ({}, "names no shards"),
    ({"weight_map": {"0.bias": 7}}, "names no shards"),
    ({"weight_map": {"0.bias": "../model.safetensors"}}, "names the shard '../model.safetensors'; shards lie next to"),
    ({"weight_map": {"0.bias": "a.safetensors", "x": "b.safetensors"}}, "a.safetensors, which is missing; copy all 2"),
    ({"weight_map": {"0.bias": "model-00001-of-00002.safetensors"}}, "'0.bias' is missing"),
]


def test_an_index_that_cannot_be_followed_is_explained(tmp_path: Path) -> None:
    index = shards(tmp_path)

    def load(content: object) -> None:
        index.write_text(json.dumps(content))
        find(index)

    assert_refused(ExportError, INDICES, load)


def test_an_archive_of_something_else_is_said(tmp_path: Path) -> None:
    np.savez(tmp_path / "model.pt", **{name: value.numpy() for name, value in GOOD.items()})
    (tmp_path / "model.pt.npz").rename(tmp_path / "model.pt")
    with pytest.raises(ExportError, match=r"a zip archive that torch\.save did not write"):
        find(tmp_path / "model.pt")
