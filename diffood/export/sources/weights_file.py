"""Opens files of weights that torch or safetensors wrote, whatever their ending. Runs no code of theirs."""

import pickle
import re
import shlex
import zipfile
from pathlib import Path

import torch

from diffood.errors import ExportError
from diffood.export.sources.json_config import read_config
from diffood.export.sources.weights_heads import MAX_PICKLE_BYTES, find_missing_storage, require_plain_header
from diffood.runtime.budget import limited_memory, memory_budget
from diffood.runtime.zip_directory import list_entries

MAX_DIRECTORY_BYTES = 16 * 2**20  # of an archive: two hundred thousand tensors
MAX_INDEX_BYTES = 2**25
_INDEX = re.compile(r"\.index(\.\w+)?\.json$")  # names the shards of weights in several files; diffusers adds a variant
ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
_HEAD = 512  # bytes that tell what a file is
_EXPORTED = ("archive_format", "serialized_exported_program.json")  # entries of torch.export's archives

# What people give in place of weights: first bytes, what that is, what to do.
_FOREIGN = (
    (b"version https://git-lfs", "a pointer of Git LFS, not the weights", "run `git lfs pull` in its repository"),
    (b"<!doctype html", "a web page: the download failed", "download the file again"),
    (b"<html", "a web page: the download failed", "download the file again"),
    (b"\x89HDF", "HDF5, as Keras writes it", "write an ONNX file with tf2onnx and give it as onnx:FILE"),
    (b"\x1f\x8b", "compressed with gzip", "unpack it first"),
    (b"BZh", "compressed with bzip2", "unpack it first"),
    (b"\xfd7zXZ", "compressed with xz", "unpack it first"),
)

# Keeps tensors, and the dicts, lists and state dicts around them, of whatever torch.load gives.
CONVERT = (
    "import sys, torch; keep = lambda v: keep(v.state_dict()) if hasattr(v, 'state_dict') else keep(v.model) if "
    "hasattr(v, 'model') else {k: keep(x) for k, x in v.items()} if isinstance(v, dict) else list(map(keep, v)) if "
    "isinstance(v, (list, tuple)) else v if isinstance(v, torch.Tensor) else None; "
    "torch.save(keep(torch.load(sys.argv[1], 'cpu', weights_only=False)), sys.argv[2])"
)


def read_weights_file(path: Path) -> tuple[object, list[Path]]:
    """What a file of weights holds, and the files that were read: it, or the shards that an index names.

    torch files are opened with weights_only and, since torch 1.6, mapped and not read into memory. Raises ExportError
    where the file is missing, damaged, compressed, of another kind, or needs code to be opened.
    """
    if not path.is_file():
        raise ExportError(f"No weights at {path}{_suggest(path)}.")
    if _INDEX.search(path.name):
        return _read_shards(path)
    return _read(path), [path]


def _suggest(path: Path) -> str:
    if not path.is_dir():
        return "; give a .safetensors file, or one that torch.save wrote"
    if (path / ".metadata").is_file():
        return (
            ", a folder of torch.distributed.checkpoint; join it first: python -m "
            f"torch.distributed.checkpoint.format_utils dcp_to_torch {shlex.quote(str(path))} weights.pt"
        )
    inside = sorted(file.name for file in path.iterdir() if file.suffix in ENDINGS or _INDEX.search(file.name))
    listed = f" of it: {', '.join(inside[:5])}" if inside else ""
    return f", which is a folder; give a file{listed}"


def _read_shards(index: Path) -> tuple[object, list[Path]]:
    """The tensors of all shards that an index names; they lie next to it."""
    places = read_config(index, MAX_INDEX_BYTES).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise ExportError(f"{index} names no shards (weight_map); save the model again.")
    names = sorted(set(places.values()))
    merged: dict[object, object] = {}
    for name in names:
        shard = index.parent / name
        if Path(name).name != name:
            raise ExportError(f"{index} names the shard {name[:100]!r}; shards lie next to their index.")
        if not shard.is_file():
            raise ExportError(f"{index} names the shard {name}, which is missing; copy all {len(names)} shards.")
        part = _read(shard)
        merged |= part if isinstance(part, dict) else {}
    return merged, [index.parent / name for name in names]


def _read(path: Path) -> object:
    with path.open("rb") as file:
        head = file.read(_HEAD)
    for start, what, advice in _FOREIGN:
        if head[: len(start)].lower() == start.lower():
            raise ExportError(f"{path.name} is {what}; {advice}.")
    if path.suffix == ".onnx":
        raise ExportError(f"{path.name} is an ONNX graph, which holds its own weights; give it as onnx:{path}.")
    header = int.from_bytes(head[:8], "little")
    safetensors = head[8:9] == b"{" and header <= path.stat().st_size - 8
    if safetensors or (path.suffix == ".safetensors" and not head.startswith((b"PK\x03\x04", b"\x80"))):
        return _read_safetensors(path)
    return _read_torch(path)


def _read_safetensors(path: Path) -> object:
    from safetensors.torch import load_file

    require_plain_header(path)
    try:
        return load_file(path)
    except Exception as error:
        raise ExportError(f"{path} is not readable as safetensors ({error}); copy it again.") from None


def _read_torch(path: Path) -> object:
    archive = _is_archive(path)  # as since torch 1.6; older files can only be read, not mapped
    missing = ""
    if archive:
        _require_tensors_alone(path)
    else:
        missing = find_missing_storage(path)
    try:
        with limited_memory(memory_budget(path.stat().st_size)):  # pickles may ask for arrays of any size
            loaded = _load_tensors(path, archive=archive)
    except pickle.UnpicklingError as error:
        raise ExportError(_advise_to_convert(path, error)) from None
    except Exception as error:
        raise ExportError(f"{path.name} is not readable as a checkpoint ({_reason(error)}); copy it again.") from None
    if missing:
        raise ExportError(f"{path.name} {missing}; copy it again, whole, from its source.")
    return loaded


def _load_tensors(path: Path, *, archive: bool) -> object:
    if path.suffix == ".safetensors":  # which torch.load believes; opened, a file has no ending
        with path.open("rb") as file:
            return torch.load(file, map_location="cpu", weights_only=True)
    return torch.load(path, map_location="cpu", weights_only=True, mmap=archive)


def _is_archive(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except Exception:  # it looks at the end of the file, and fails on hostile bytes: BadZipFile, struct.error, ...
        return True  # a damaged one


def _advise_to_convert(path: Path, error: Exception) -> str:
    """What was found in a pickle, and the command that takes its weights out."""
    target = path.with_name(f"{path.stem}-weights.pt")
    try:
        names = sorted(
            torch.serialization.get_unsafe_globals_in_checkpoint(path)
        )  # reads the pickle and runs nothing of it
    except Exception:  # of a file from before torch 1.6
        names = re.findall(r"GLOBAL ([\w.]+)", str(error))
    own = [name.removeprefix("__main__.") for name in names if name.startswith("__main__.")]
    found = f"it names {_shorten(', '.join(names))}" if names else _reason(error)
    where, program = "where the code it was trained with can be imported", CONVERT
    if own:
        where = f"in the folder of the script that defines {_shorten(own[0])}, with the script's name for SCRIPT"
        program = f"from SCRIPT import *; {CONVERT}"
    return (
        f"{path.name} holds more than tensors, and opening it could run code ({found}). If you trust the file, convert "
        f'it once, {where}, and give {target.name}: python -c "{program}" {shlex.quote(str(path.absolute()))} '
        f"{shlex.quote(str(target.absolute()))}"
    )


def _shorten(text: str) -> str:
    """The first 200 letters, without control characters."""
    return text.encode("unicode_escape").decode()[:200]


def _require_tensors_alone(path: Path) -> None:
    """Refuse an archive that is not torch.save's, or has compressed entries: a zip bomb must not be unpacked."""
    try:
        with path.open("rb") as file:
            entries = list_entries(file, MAX_DIRECTORY_BYTES)
    except Exception as error:  # zipfile fails on hostile bytes with any class
        raise ExportError(f"{path.name} is a damaged archive ({_reason(error)}); copy it again.") from None
    names = {entry.filename.rpartition("/")[2] for entry in entries}
    if "constants.pkl" in names:
        raise ExportError(
            f"{path.name} is a TorchScript archive (torch.jit.save), which holds code. Take its weights out once: "
            + _one_liner("torch.jit.load(sys.argv[1], 'cpu').state_dict()", path)
        )
    if not names.isdisjoint(_EXPORTED):
        raise ExportError(
            f"{path.name} is an exported program (torch.export.save). Take its weights out once: "
            + _one_liner("dict(torch.export.load(sys.argv[1]).state_dict)", path)
        )
    if "data.pkl" not in names:
        raise ExportError(f"{path.name} is a zip archive that torch.save did not write; unpack it, if weights are in.")
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size for entry in entries):
        raise ExportError(
            f"{path.name} is compressed, which torch.save never does; load it where you trust it and save it again."
        )
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise ExportError(f"{path.name} claims more bytes than it has; copy it again from its source.")
    if any(entry.filename.endswith(".pkl") and entry.file_size > MAX_PICKLE_BYTES for entry in entries):
        raise ExportError(f"The names in {path.name} take more than {MAX_PICKLE_BYTES} bytes; it is not a checkpoint.")


def _one_liner(state: str, path: Path) -> str:
    """The command that saves the state dict an expression gives, and what to do with the file."""
    target = path.with_name(f"{path.stem}-weights.pt")
    return (
        f'python -c "import sys, torch; torch.save({state}, sys.argv[2])" {shlex.quote(str(path.absolute()))} '
        f"{shlex.quote(str(target.absolute()))}"
    )


def _reason(error: Exception) -> str:
    """The line of torch's explanation that says what was found."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "GLOBAL" in line or "Unsupported" in line or "WeightsUnpickler error" in line]
    return _shorten((telling or lines or [type(error).__name__])[0])
