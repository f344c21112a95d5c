"""Images that stand for a data set."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from diffood.zoo.images import load_set


def write_idx(path: Path, values: np.ndarray) -> None:
    head = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
    path.write_bytes(gzip.compress(head + values.tobytes(), 1))


@pytest.fixture
def garments(tmp_path: Path) -> Path:
    """A folder as Fashion-MNIST's: images of ten classes whose first pixels are their label, number and split."""
    for first, (split, count) in enumerate((("train", 30), ("t10k", 12))):
        labels = np.repeat(np.arange(10, dtype=np.uint8), count)
        images = np.zeros((len(labels), 28, 28), np.uint8)
        images[:, 0, 0], images[:, 0, 1], images[:, 0, 2] = labels, np.tile(np.arange(count), 10), first
        write_idx(tmp_path / f"{split}-images-idx3-ubyte.gz", images)
        write_idx(tmp_path / f"{split}-labels-idx1-ubyte.gz", labels)
    return tmp_path


@pytest.fixture(scope="session")
def real_garments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Such a folder of the embedded clothes."""
    folder = tmp_path_factory.mktemp("garments")
    for split, name, count in (("train", "fashion-test", 200), ("t10k", "fashion-validation", 200)):
        stored = load_set(name)
        write_idx(folder / f"{split}-images-idx3-ubyte.gz", stored.images[:count])
        write_idx(folder / f"{split}-labels-idx1-ubyte.gz", stored.labels[:count].astype(np.uint8))
    return folder
