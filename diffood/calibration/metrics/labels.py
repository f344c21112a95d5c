"""Reads the true classes of in-distribution files from the names of their folders; opens no file."""

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt

UNKNOWN = -1


def labels_from_folders(ids: Sequence[str], class_names: Sequence[str]) -> npt.NDArray[np.int64]:
    """Classes int64 [N] of files with these ids (paths relative to the folder given), UNKNOWN where none is said.

    A file is of the class whose name is the folder it lies in: "Coat/0001.png", or deeper, "Coat/left/0001.png". So
    labelled images lie on disk already (torchvision's ImageFolder), and there is no list to keep in step with them. A
    class "T-shirt/top" is the folder "top" in "T-shirt"; where classes "a" and "a/b" both are, the longer name counts.
    A name that several classes have says nothing.

    Where no folder named from the top is a class, the topmost name is left out, and so on: ids of images in a tar or
    of several folders begin with the name of that, "test.tar/Coat/0001.png".
    """
    counts = Counter(class_names)
    named = {name: index for index, name in enumerate(class_names) if counts[name] == 1}
    return np.array([_label(PurePosixPath(identity), named) for identity in ids], np.int64)


def _label(path: PurePosixPath, named: dict[str, int]) -> int:
    """The deepest folder, named from as far up as possible, that is a class."""
    folders = path.parts[:-1]
    for top in range(len(folders)):
        for end in range(len(folders), top, -1):
            if (name := "/".join(folders[top:end])) in named:
                return named[name]
    return UNKNOWN
