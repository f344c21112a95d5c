"""The class of a file is the folder it lies in, where that is named like a class."""

from diffood.calibration.metrics.labels import UNKNOWN, labels_from_folders

NAMES = ("Coat", "T-shirt/top", "T-shirt", "class 3", "twice", "twice")


LABELS = {
    "Coat/0001.png": 0,
    "Coat/left/0001.png": 0,
    "T-shirt/0001.png": 2,
    "T-shirt/top/0001.png": 1,  # the name itself contains a slash
    "T-shirt/front/0001.png": 2,
    "class 3/a.png": 3,
    "0001.png": UNKNOWN,
    "Coat": UNKNOWN,  # a file
    "coat/0001.png": UNKNOWN,
    "Coats/0001.png": UNKNOWN,
    "camera/Coat/0001.png": 0,
    "test.tar/T-shirt/top/0001.png": 1,
    "Coat/class 3/0001.png": 0,  # named from the top
    "twice/0001.png": UNKNOWN,  # which of the two?
}


def test_the_folder_is_the_class() -> None:
    found = labels_from_folders(list(LABELS), NAMES)
    assert dict(zip(LABELS, found.tolist(), strict=True)) == LABELS


def test_labels_are_in_the_order_of_the_files() -> None:
    labels = labels_from_folders(["T-shirt/1", "x", "Coat/1"], NAMES)
    assert (labels.tolist(), labels.dtype.name) == ([2, UNKNOWN, 0], "int64")
    assert labels_from_folders([], NAMES).shape == (0,)
