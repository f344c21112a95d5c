"""Opens an ONNX file of unknown origin: bounded, checked, weights in its folder, standard operators only."""

import contextlib
from collections.abc import Iterable
from pathlib import Path

import onnx
from onnx import external_data_helper, inliner

from diffood.errors import ExportError
from diffood.runtime.bundle.external_data import StrayTensorError, find_external_data
from diffood.runtime.bundle.operators import ALLOWED, MOST_NODES
from diffood.runtime.records import one_line

MAX_BYTES = 2**31 - 1  # protobuf's limit, of the file alone and with its weights
STANDARD = ("", "ai.onnx")
BRANCHES = {"If", "Loop", "Scan"}
MOST_CALLS = 32  # of functions, each by the one before; exporters nest modules some ten deep


def open_onnx(path: Path) -> tuple[onnx.ModelProto, list[Path]]:
    """The model, its weights in it, local functions written out; and the files it was read from.

    Raises ExportError where it is no valid ONNX, too large, keeps weights anywhere but in plain files of its folder,
    needs operators of a vendor, or branches (If, Loop, Scan).
    """
    if not path.is_file():
        raise ExportError(f"No ONNX file {path}; give onnx:FILE.")
    if path.stat().st_size > MAX_BYTES:
        raise ExportError(f"{path} has {path.stat().st_size} bytes; at most {MAX_BYTES} are supported.")
    try:
        data = path.read_bytes()
        with contextlib.suppress(StrayTensorError):  # which is said below
            find_external_data(data)  # refuses more fields than any model has: a parser makes 100 bytes of each
        model = onnx.load_model_from_string(data)
        del data
    except Exception as error:  # protobuf's DecodeError, and what else damaged bytes give
        raise ExportError(f"{path} is not an ONNX file ({error}); export it again.") from None
    weights = _load_weights(model, path)
    try:
        whole = model.SerializeToString()
        outside = bool(find_external_data(whole))
    except StrayTensorError:
        outside = True
    except ValueError as error:
        raise ExportError(f"{path} cannot be written as one file ({error}); export it again, smaller.") from None
    if outside:
        raise ExportError(f"{path} keeps more than its graph's weights in other files; export it again as one file.")
    try:
        _require_few_calls(model)
        onnx.checker.check_model(whole)
        if model.functions:
            model = inliner.inline_local_functions(model)
    except Exception as error:
        raise ExportError(f"{path} is not valid ONNX: {one_line(error)[:300]}. Export it again.") from None
    _require_standard(model, path)
    return model, [path, *weights]


def _load_weights(model: onnx.ModelProto, path: Path) -> list[Path]:
    """Move weights that are in other files of the folder into the graph; returns those files."""
    outside = [tensor for tensor in model.graph.initializer if external_data_helper.uses_external_data(tensor)]
    files: dict[str, Path] = {}
    total = path.stat().st_size
    for tensor in outside:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        name = entries.get("location", "")
        place = path.parent / name
        if not name or Path(name).name != name or name in (".", "..") or place.is_symlink() or not place.is_file():
            raise ExportError(
                f"{path} keeps {tensor.name} in {name!r}, which is not a regular file of its folder; put it there, or "
                "save the model as one file: onnx.save(onnx.load(path), other_path)."
            )
        files[name] = place
        length = entries.get("length", "")
        total += int(length) if length.isdecimal() else place.stat().st_size
        if total > MAX_BYTES:
            raise ExportError(f"{path} and its weights have more than {MAX_BYTES} bytes, the limit of ONNX.")
    try:
        for tensor in outside:
            external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]
    except Exception as error:
        reason = one_line(error)[:200]
        raise ExportError(f"The weights of {path} cannot be read ({reason}); copy the folder again.") from None
    return list(files.values())


def _require_few_calls(model: onnx.ModelProto) -> None:
    """Raise ValueError where writing out the functions gives more nodes than a bundle may have: they may double."""
    functions = {(function.domain, function.name): function.node for function in model.functions}
    if len(functions) < len(model.functions):
        raise ValueError("it has two functions of one name")
    sizes: dict[tuple[str, str], int] = {}

    def count(nodes: Iterable[onnx.NodeProto], depth: int) -> int:
        if depth > MOST_CALLS:
            raise ValueError(f"its functions call each other more than {MOST_CALLS} deep")
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type)
            if key in functions and key not in sizes:
                sizes[key] = count(functions[key], depth + 1)
            inner = [graph for entry in node.attribute for graph in (entry.g, *entry.graphs)]
            total += sizes.get(key, 1) + sum(count(graph.node, depth + 1) for graph in inner)
            if total > MOST_NODES:
                raise ValueError(f"its functions, written out, are more than {MOST_NODES} nodes")
        return total

    for nodes in (model.graph.node, *functions.values()):
        count(nodes, 0)


def _require_standard(model: onnx.ModelProto, path: Path) -> None:
    foreign = sorted({f"{node.domain}.{node.op_type}" for node in model.graph.node if node.domain not in STANDARD})
    if foreign:
        raise ExportError(
            f"{path} needs operators that are not ONNX's own ({', '.join(foreign[:3])}); export it without them, "
            "before an optimiser or quantiser wrote them."
        )
    unknown = sorted({node.op_type for node in model.graph.node} - ALLOWED - BRANCHES)
    if unknown:
        raise ExportError(
            f"{path} has operators that the graphs of a bundle may not use ({', '.join(unknown[:3])}); export it "
            "without them."
        )
    branches = sorted({node.op_type for node in model.graph.node for part in node.attribute if part.HasField("g")})
    if branches:
        raise ExportError(
            f"{path} has control flow ({', '.join(branches)}), which an engine of a fixed graph cannot run; export it "
            "without: torch.onnx.export(..., dynamo=True), or simplified."
        )
