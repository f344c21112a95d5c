"""Reads the training data of the zoo from the files of Debian's dataset packages."""

import gzip
from pathlib import Path

import numpy as np
import numpy.typing as npt

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # apt-get install dataset-fashion-mnist


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Read one gzipped IDX file of unsigned bytes, the format of MNIST and Fashion-MNIST."""
    data = gzip.decompress(path.read_bytes())
    if data[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path}: not an IDX file of unsigned bytes (header {data[:4]!r})")
    shape = np.frombuffer(data, ">u4", count=data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)


def load_split(folder: Path, split: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Images uint8 [N, 28, 28] and labels uint8 [N] of split "train" or "t10k"."""
    return (
        read_idx(folder / f"{split}-images-idx3-ubyte.gz"),
        read_idx(folder / f"{split}-labels-idx1-ubyte.gz"),
    )
