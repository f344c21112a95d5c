"""Tests of the embedded image sets: what the files hold, and that unpacking them loses nothing."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffood.errors import UsageError
from diffood.zoo.images import FOLDER, SETS, load_set, unpack_set
from research.datasets import FASHION_MNIST, load_split

COUNTS = {
    "fashion-validation": 2000,
    "fashion-test": 1000,
    "digits": 500,
    "animals": 500,
    "textures": 500,
    "photos": 500,
    "upside-down": 500,
}
IN_DISTRIBUTION = {"fashion-validation", "fashion-test"}
MOST_BYTES = 6_000_000


def contents(name: str) -> set[bytes]:
    """The images of a set as byte strings."""
    return {image.tobytes() for image in load_set(name).images}


def test_sets_are_the_known_ones_with_their_counts_and_roles() -> None:
    assert {name: about.count for name, about in SETS.items()} == COUNTS
    assert {name for name, about in SETS.items() if about.role == "ind"} == IN_DISTRIBUTION


def test_every_set_has_a_file_and_every_file_is_a_set() -> None:
    assert {path.stem for path in FOLDER.glob("*.npz")} == set(SETS)


@pytest.mark.parametrize("name", SETS)
def test_images_are_grey_28_by_28_bytes(name: str) -> None:
    loaded = load_set(name)
    assert loaded.name == name
    assert loaded.images.dtype == np.uint8
    assert loaded.images.shape == (COUNTS[name], 28, 28)


@pytest.mark.parametrize("name", SETS)
def test_only_in_distribution_sets_have_labels(name: str) -> None:
    labels = load_set(name).labels
    if name not in IN_DISTRIBUTION:
        assert labels is None
        return
    assert labels is not None
    assert labels.dtype == np.uint8
    assert labels.shape == (COUNTS[name],)
    assert set(labels.tolist()) == set(range(10))


@pytest.mark.parametrize("name", SETS)
def test_no_image_occurs_twice_in_a_set(name: str) -> None:
    assert len(contents(name)) == COUNTS[name]


@pytest.mark.parametrize(("one", "other"), list(combinations(SETS, 2)))
def test_no_image_is_in_two_sets(one: str, other: str) -> None:
    assert contents(one).isdisjoint(contents(other))


@pytest.mark.parametrize("name", sorted(IN_DISTRIBUTION))
def test_upside_down_images_are_not_those_of_the_in_distribution_sets_turned(name: str) -> None:
    turned_back = {np.flipud(image).tobytes() for image in load_set("upside-down").images}
    assert turned_back.isdisjoint(contents(name))


@pytest.mark.skipif(not FASHION_MNIST.is_dir(), reason="needs Debian's dataset-fashion-mnist")
def test_fashion_images_are_test_images_with_their_labels_and_none_was_in_training() -> None:
    train = {image.tobytes() for image in load_split(FASHION_MNIST, "train")[0]}
    images, labels = load_split(FASHION_MNIST, "t10k")
    label_of = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    for name in IN_DISTRIBUTION:
        loaded = load_set(name)
        assert loaded.labels is not None
        assert [label_of[image.tobytes()] for image in loaded.images] == loaded.labels.tolist()
        assert train.isdisjoint(contents(name))
    turned_back = {np.flipud(image).tobytes() for image in load_set("upside-down").images}
    assert turned_back <= set(label_of)
    assert train.isdisjoint(turned_back)


@pytest.mark.parametrize("name", SETS)
def test_first_images_are_spread_over_the_whole_set(name: str) -> None:
    """A set sorted by source would have a first fifth whose brightness is far from the set's: here, within 5 errors."""
    brightness = load_set(name).images.mean(axis=(1, 2))
    first = brightness[: len(brightness) // 5]
    assert abs(first.mean() - brightness.mean()) < 5 * brightness.std() / np.sqrt(len(first))


def test_files_are_small_enough_to_ship() -> None:
    assert sum(path.stat().st_size for path in FOLDER.glob("*.npz")) < MOST_BYTES


@pytest.mark.parametrize("name", SETS)
def test_unpacked_files_decode_to_the_same_images(name: str, tmp_path: Path) -> None:
    paths = unpack_set(name, tmp_path / "new" / name, limit=60)
    assert [path.name for path in paths[:2]] == ["0000.png", "0001.png"]
    decoded = []
    for path in paths:
        with Image.open(path) as image:
            assert (image.format, image.mode) == ("PNG", "L")
            decoded.append(np.asarray(image))
    np.testing.assert_array_equal(np.stack(decoded), load_set(name).images[:60])


@pytest.mark.parametrize("limit", [None, 500, 501])
def test_unpacking_without_a_smaller_limit_writes_the_whole_set(limit: int | None, tmp_path: Path) -> None:
    paths = unpack_set("digits", tmp_path, limit)
    assert len(paths) == 500
    assert sorted(tmp_path.iterdir()) == paths


def test_unpacking_again_gives_the_same_files(tmp_path: Path) -> None:
    assert unpack_set("digits", tmp_path, limit=3) == unpack_set("digits", tmp_path, limit=3)


def test_unpacking_fewer_than_before_is_refused(tmp_path: Path) -> None:
    unpack_set("digits", tmp_path, limit=3)
    with pytest.raises(UsageError, match=r"already holds 0002\.png; name an empty folder"):
        unpack_set("digits", tmp_path, limit=2)


def test_unpacking_into_a_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "notes"
    file.touch()
    with pytest.raises(UsageError, match="which is a file"):
        unpack_set("digits", file)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(limit: int, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"Cannot unpack {limit} images"):
        unpack_set("digits", tmp_path, limit)


@pytest.mark.parametrize("name", ["cats", "", "../images/digits"])
def test_an_unknown_name_is_refused_and_the_known_ones_are_named(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_set(name)
    assert repr(name) in str(caught.value)
    assert all(known in str(caught.value) for known in SETS)
