"""Tests of the embedded image sets: what the files hold, and that unpacking them loses nothing."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffood.errors import UsageError
from diffood.zoo.images import COLOUR_SETS, FOLDER, SETS, load_set, unpack_set
from diffood.zoo.pairs import PAIRS
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
COLOUR_COUNTS = {
    "surfaces-validation": 700,
    "surfaces-test": 400,
    "surfaces-new": 120,
    "surfaces-other": 180,
    "photos-colour": 100,
}
ALL = COUNTS | COLOUR_COUNTS
CLASSES = {"fashion-validation": 10, "fashion-test": 10, "surfaces-validation": 8, "surfaces-test": 8}
IN_DISTRIBUTION = {"fashion-validation", "fashion-test"}
MOST_BYTES = 6_000_000
MOST_BYTES_IN_COLOUR = 8_000_000  # models and images


def contents(name: str) -> set[bytes]:
    """The images of a set as byte strings."""
    return {image.tobytes() for image in load_set(name).images}


def test_sets_are_the_known_ones_with_their_counts_and_roles() -> None:
    assert {name: about.count for name, about in SETS.items()} == COUNTS
    assert {name: about.count for name, about in COLOUR_SETS.items()} == COLOUR_COUNTS
    assert {name for name, about in (SETS | COLOUR_SETS).items() if about.role == "ind"} == set(CLASSES)
    size = {path.stem: path.stat().st_size for path in FOLDER.glob("*.npz")}
    assert set(size) == set(ALL)
    assert sum(size[name] for name in COUNTS) < MOST_BYTES
    models = sum(path.stat().st_size for path in PAIRS["materials"].weights.rglob("*"))
    assert models + sum(size[name] for name in COLOUR_COUNTS) < MOST_BYTES_IN_COLOUR


def test_a_pair_is_tried_on_sets_that_are_there_and_its_licence_is_told() -> None:
    told = (FOLDER / "README.md").read_text()
    for pair in PAIRS.values():
        names = {pair.validation, pair.test, *pair.unseen.values()}
        assert names <= set(ALL), pair.name
        assert load_set(pair.test).images.shape[1:3] == (pair.shape.height, pair.shape.width), pair.name
        assert len(pair.class_names.read_text().splitlines()) == CLASSES[pair.test], pair.name
        assert pair.licence.replace("CC-BY-SA-3.0", "CC BY-SA 3.0") in told, pair.name
        assert all(f"\n| {name} |" in told for name in names), pair.name


def test_images_are_bytes_of_their_shape_and_only_in_distribution_sets_have_labels() -> None:
    for name, count in ALL.items():
        loaded = load_set(name)
        assert loaded.name == name
        shape = (count, 28, 28) if name in COUNTS else (count, 32, 32, 3)
        assert (loaded.images.dtype, loaded.images.shape) == (np.uint8, shape), name
        if name not in CLASSES:
            assert loaded.labels is None, name
            continue
        assert loaded.labels is not None, name
        assert (loaded.labels.dtype, loaded.labels.shape) == (np.uint8, (count,)), name
        assert set(loaded.labels.tolist()) == set(range(CLASSES[name])), name


def test_no_image_occurs_twice_in_a_set_or_in_two_sets() -> None:
    found = {name: contents(name) for name in ALL}
    assert {name: len(images) for name, images in found.items()} == ALL
    for one, other in combinations(ALL, 2):
        assert found[one].isdisjoint(found[other]), f"{one} and {other}"
    turned_back = {np.flipud(image).tobytes() for image in load_set("upside-down").images}
    for name in IN_DISTRIBUTION:
        assert turned_back.isdisjoint(found[name]), name


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


def test_first_images_are_spread_over_the_whole_set() -> None:
    """A set sorted by source would have a first fifth whose brightness is far from the set's: here, within 5 errors."""
    for name in ALL:
        images = load_set(name).images
        brightness = images.reshape(len(images), -1).mean(axis=1)
        first = brightness[: len(brightness) // 5]
        assert abs(first.mean() - brightness.mean()) < 5 * brightness.std() / np.sqrt(len(first)), name


def test_unpacked_files_decode_to_the_same_images(tmp_path: Path) -> None:
    for name in ALL:
        paths = unpack_set(name, tmp_path / "new" / name, limit=20)
        assert [path.name for path in paths[:2]] == ["0000.png", "0001.png"]
        decoded = []
        for path in paths:
            with Image.open(path) as image:
                assert (image.format, image.mode) == ("PNG", "L" if name in COUNTS else "RGB")
                decoded.append(np.asarray(image))
        np.testing.assert_array_equal(np.stack(decoded), load_set(name).images[:20], err_msg=name)


def test_unpacking_without_a_smaller_limit_writes_the_whole_set(tmp_path: Path) -> None:
    for limit in (None, 500, 501):
        folder = tmp_path / str(limit)
        paths = unpack_set("digits", folder, limit)
        assert len(paths) == 500
        assert sorted(folder.iterdir()) == paths


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


def test_a_limit_below_one_is_refused(tmp_path: Path) -> None:
    for limit in (0, -1):
        with pytest.raises(UsageError, match=f"Cannot unpack {limit} images"):
            unpack_set("digits", tmp_path, limit)


def test_an_unknown_name_is_refused_and_the_known_ones_are_named() -> None:
    for name in ("cats", "", "../images/digits"):
        with pytest.raises(UsageError) as caught:
            load_set(name)
        assert repr(name) in str(caught.value)
        assert all(known in str(caught.value) for known in ALL)
