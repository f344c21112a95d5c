"""Arrays from the bytes of an untrusted .npz: bounded in size, no pickle."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from diffood.errors import BundleError
from diffood.runtime.zip_directory import list_entries

MAX_STEPS = 100_000  # training steps of a noise schedule
MAX_EXPANDED_BYTES = 2**28  # arrays of one file, unpacked; the largest are the features of a bank
MAX_DIRECTORY_BYTES = 2**20  # some ten thousand arrays; each of a plan's golden outputs is one


def load_arrays(data: bytes, name: str, remedy: str = "export the bundle anew") -> dict[str, npt.NDArray[Any]]:
    """Arrays of an .npz given as bytes, without pickle. Raises BundleError if it is invalid or expands too far."""
    try:
        return _read_arrays(data)
    except Exception as error:  # zipfile, zlib and numpy raise a dozen kinds for damaged bytes
        reason = str(error).partition("\n")[0]
        raise BundleError(f"{name} is not a readable array file ({reason}); {remedy}.") from None


def load_noise_levels(data: bytes, path: Path) -> npt.NDArray[np.float64]:
    """Noise levels float64 [T] from the bytes read from `path`. Raises BundleError if they are none."""
    levels = load_arrays(data, path.name).get("alpha_bar")
    if levels is None or not (
        levels.dtype == np.float64
        and levels.ndim == 1
        and 2 <= len(levels) <= MAX_STEPS
        and bool(np.all((levels > 0) & (levels < 1)) and np.all(np.diff(levels) < 0))
    ):
        raise BundleError(
            f"{path} needs 2 or more float64 noise levels "
            "named alpha_bar that fall within (0, 1). Export the bundle anew."
        )
    return levels


def _read_arrays(data: bytes) -> dict[str, npt.NDArray[Any]]:
    members = list_entries(io.BytesIO(data), MAX_DIRECTORY_BYTES)
    # zipfile never gives more than file_size bytes, and unpacks piecemeal with these two methods only
    expanded = sum(member.file_size for member in members)
    if expanded > MAX_EXPANDED_BYTES:
        raise ValueError(f"it expands to {expanded} bytes where at most {MAX_EXPANDED_BYTES} are allowed")
    if any(member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for member in members):
        raise ValueError("it is packed by a method that numpy does not write")
    arrays = {}
    with np.load(io.BytesIO(data), allow_pickle=False) as loaded:
        for key in loaded.files:
            array = loaded[key]
            if not isinstance(array, np.ndarray):
                raise TypeError(f"{key!r} in it is no array")
            arrays[key] = array
    return arrays
