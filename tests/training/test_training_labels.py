"""Where labels come from, and that folders in another order than the classifier's classes are refused."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from diffood.errors import UsageError
from diffood.training.labels import KnownClasses, choose_labels, folder_classes

IDS = tuple(f"{name}/{index}.png" for name in ("ant", "bee", "cat") for index in range(10))
TRUE = np.repeat(np.arange(3), 10)


def predictor(values: npt.NDArray[np.int64]) -> Callable[[npt.NDArray[np.int64]], npt.NDArray[np.int64]]:
    return lambda indices: values[indices]


def test_classes_are_the_topmost_folders_that_differ() -> None:
    for ids, classes in [
        (["ant/1.png", "bee/1.png", "top.png"], ["ant", "bee", None]),
        (["ant/left/1.png", "ant/right/1.png", "bee/1.png"], ["ant", "ant", "bee"]),
        (["data/train/ant/1.png", "data/train/bee/1.png"], ["ant", "bee"]),  # of a glob
        (["a.tar/ant/1.png", "b.tar/bee/1.png"], ["ant", "bee"]),
        (["a.tar/train/ant/1.png", "a.tar/train/bee/1.png"], ["ant", "bee"]),
        (["1.png", "2.png"], [None, None]),
    ]:
        assert folder_classes(ids) == classes, ids


def test_without_a_classifier_folders_are_classes_in_the_order_of_their_names() -> None:
    labels = choose_labels([*IDS, "odd.png"], "auto", None)
    assert labels.names == ("ant", "bee", "cat")
    assert labels.values.tolist() == [*TRUE, 3]  # 3: the null class, as nothing is known
    assert labels.count == 4
    assert labels.source == "folders, in the order of their names, 1 images without one"


def test_a_folder_that_is_no_line_of_a_file_of_class_names_is_no_class() -> None:
    for name in ("a\nb", "a\x85b", "\x1b[31m", "a\u2028", "\u202ea", " a", "a\u3000", " "):
        with pytest.raises(UsageError, match=r"cannot be a class: .* Rename it") as refused:
            choose_labels([f"{name}/1.png", "b/2.png"], "auto", None)
        assert str(refused.value).isprintable()
        assert choose_labels([f"{name}/1.png", "b/2.png"], "none", None).names == ()


def test_a_classifier_sets_the_order_of_folders() -> None:
    names = ("cat", "ant", "dog", "bee")
    mapped = np.array([1, 3, 0])[TRUE]
    labels = choose_labels(IDS, "auto", KnownClasses(4, names, predictor(mapped)))
    assert labels.names == names
    assert labels.values.tolist() == mapped.tolist()
    assert labels.source == "folders, in the classifier's order"


def test_a_classifier_without_names_may_have_the_order_of_folders() -> None:
    weak = TRUE.copy()
    weak[::3] = 0  # a third is predicted wrongly
    assert choose_labels(IDS, "auto", KnownClasses(3, None, predictor(weak))).values.tolist() == TRUE.tolist()


def test_folders_in_another_order_than_the_classifier_are_refused(subtests: pytest.Subtests) -> None:
    other = np.array([0, 2, 1])[TRUE]
    said = r"33% of 30 images, and would for 100%.*'bee', class 1, .* class 2"
    for names in (None, ("ant", "bee", "cat")):
        with subtests.test(names=names), pytest.raises(UsageError, match=said):
            choose_labels(IDS, "auto", KnownClasses(3, names, predictor(other)))


def test_predictions_are_taken_where_folders_are_no_classes(subtests: pytest.Subtests) -> None:
    cases: list[tuple[tuple[str, ...], int, tuple[str, ...] | None]] = [
        (tuple(f"{index}.png" for index in range(30)), 3, None),  # no folders
        (IDS, 5, None),  # not as many as classes
        (IDS, 3, ("x", "y", "z")),  # other names
    ]
    for ids, count, names in cases:
        with subtests.test(first=ids[0], count=count, names=names):
            labels = choose_labels(ids, "auto", KnownClasses(count, names, predictor(TRUE)))
            assert labels.values.tolist() == TRUE.tolist()
            assert labels.source == "the classifier's predictions"
            assert labels.names == (names or tuple(f"class {index}" for index in range(count)))
            with pytest.raises(UsageError, match="--labels folders needs folders"):
                choose_labels(ids, "folders", KnownClasses(count, names, predictor(TRUE)))


def test_images_of_one_folder_have_no_labels() -> None:
    for ids in (("1.png", "2.png"), ("all/1.png", "all/2.png")):
        labels = choose_labels(ids, "auto", None)
        assert (labels.count, labels.names, len(labels.values)) == (0, (), 0)
    assert choose_labels(IDS, "none", None).count == 0
