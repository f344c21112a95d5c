"""Looks at what names the tensors in a file of weights, before a library makes objects of it. Runs nothing of it."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from diffood.errors import ExportError

MAX_PICKLE_BYTES = 12 * 2**20  # names and shapes of a checkpoint take some hundred kilobytes; a byte may become 80
MAX_HEADER_BYTES = 16 * 2**20
MOST_TENSORS = 100_000  # of a file; the largest checkpoints have some thousands in each
_LENGTH = 8  # bytes before the header of a safetensors file, which say its length
_OFFSETS = b'"data_offsets"'  # which each tensor has once
_PICKLES_BEFORE = 3  # a magic number, a version, the machine; then what was saved, then the keys of its storages
_KEY = 2  # place of a storage's key in ("storage", type, key, device, count, view)


def require_plain_header(path: Path) -> None:
    """Refuse a safetensors file with more names than any model has. Raises ExportError."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH), "little")
        header = file.read(min(length, MAX_HEADER_BYTES + 1))
    if len(header) > MAX_HEADER_BYTES:
        raise ExportError(
            f"The names in {path} take {length} bytes where at most {MAX_HEADER_BYTES} are allowed; it is no model."
        )
    if (count := header.count(_OFFSETS)) > MOST_TENSORS:
        raise ExportError(
            f"{path} has {count} tensors where at most {MOST_TENSORS} are allowed; save the model alone, or in shards."
        )


def find_missing_storage(path: Path) -> str:
    """What is missing in a file of torch before 1.6, as the end of a sentence; "" if nothing is, or it is not one.

    torch takes a storage whose bytes the file does not list as it finds it in memory. Raises ExportError where the
    names take more than MAX_PICKLE_BYTES.
    """
    with path.open("rb") as file:
        bounded = _Bounded(file, path)
        try:
            for _ in range(_PICKLES_BEFORE):
                _Look(bounded).load()
            saved = _Look(bounded)
            saved.load()
            listed = _Look(bounded).load()
            missing = saved.keys - set(listed)
        except ExportError:
            raise
        except Exception as error:  # torch may say more
            return f"is not as torch.save writes it ({type(error).__name__})"
    return f"lists no bytes for {len(missing)} of its {len(saved.keys)} storages" if missing else ""


class _Bounded:
    """A file of which pickles may read MAX_PICKLE_BYTES in all."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path, self._left = file, path, MAX_PICKLE_BYTES

    def read(self, count: int) -> bytes:
        return self._counted(self._file.read(min(count, self._left + 1)))

    def readline(self) -> bytes:
        return self._counted(self._file.readline(self._left + 1))

    def _counted(self, data: bytes) -> bytes:
        self._left -= len(data)
        if self._left < 0:
            raise ExportError(
                f"The names in {self._path.name} take more than {MAX_PICKLE_BYTES} bytes; it is not a checkpoint."
            )
        return data


class _Inert(dict[Any, Any]):
    """Stands for every class and function that a pickle names: takes anything and does nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    __hash__ = object.__hash__  # type: ignore[assignment]

    def __setstate__(self, _: Any) -> None:
        pass

    def append(self, _: Any) -> None:
        """As a list takes it."""

    def extend(self, _: Any) -> None:
        """As a list takes it."""


class _Look(pickle._Unpickler):  # type: ignore[name-defined,misc,unused-ignore]
    """Reads a pickle in which every name is inert, and notes the keys of the storages.

    By Python's own reader, whose memo is a dict: that of the C reader is an array, and 185 bytes took 20 GB.
    """

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self.keys: set[str] = set()

    def find_class(self, _module: str, _name: str) -> Callable[..., Any]:
        """Nothing of a module."""
        return _Inert

    def persistent_load(self, entry: Any) -> _Inert:
        """A storage that has no bytes."""
        if entry[0] == "storage":
            self.keys.add(entry[_KEY])
        return _Inert()
