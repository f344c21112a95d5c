"""The images of a tuning: taken by hash, in halves without common images, and kept from the threshold."""

import contextlib
import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffood.calibration.fusing.split import digest, fitted_count, split_sources
from diffood.calibration.scored_files import IND
from diffood.calibration.tuning.images import FEWEST_IND, FIT, gather_images, take_files
from diffood.calibration.tuning.made_ood import MAKINGS
from diffood.errors import CalibrationError, UsageError
from diffood.runtime.images.decode import ImageShape
from diffood.runtime.inputs.items import LocalFile
from diffood.runtime.inputs.open import list_inputs

SHAPE = ImageShape(1, 28, 28)


@contextlib.contextmanager
def folder_of(contents: list[int]) -> Iterator[list[LocalFile]]:
    """Files whose bytes are these numbers; they need not be images to be split."""
    with tempfile.TemporaryDirectory() as place:
        for index, content in enumerate(contents):
            (Path(place) / f"{index:03d}").write_bytes(content.to_bytes(2, "little"))
        yield list_inputs([place])


@settings(deadline=None)
@given(st.lists(st.integers(0, 60), min_size=1, max_size=60), st.sets(st.integers(0, 60)), st.booleans())
def test_no_threshold_is_fitted_on_an_image_that_chose_the_plan(
    contents: list[int], seen: set[int], fused: bool
) -> None:
    tuned = {hashlib.sha256(content.to_bytes(2, "little")).hexdigest() for content in seen}
    with folder_of(contents) as sources:
        parts = split_sources(sources, tuned=tuned, fused=fused)
        assert sorted(parts.fit + parts.calibrate) == sources
        assert not tuned & {digest(source) for source in parts.calibrate}
        assert parts.tuned == sum(content in seen for content in contents)
        wanted = fitted_count(len(contents)) if fused else 0
        assert len(parts.fit) == max(wanted, parts.tuned)  # others are fitted on only where these are too few
        assert split_sources(sources[::-1], tuned=tuned, fused=fused).tuned == parts.tuned


def test_halves_share_no_image_and_made_sets_no_source_image(clothes_folder: Path) -> None:
    images = gather_images(list_inputs([str(clothes_folder)]), {}, SHAPE, 70)
    assert images.made
    assert len(images.used) == len(set(images.used)) == 70
    groups = {name: [x.tobytes() for x in group.read()] for name, group in images.groups.items()}
    assert {name: len(found) for name, found in groups.items()} == {
        name: group.count for name, group in images.groups.items()
    }
    assert not set(groups[FIT]) & set(groups[IND])
    assert list(groups) == [FIT, IND, *MAKINGS]
    assert [len(groups[name]) for name in MAKINGS] == [7, 7, 7, 7]  # a fifth of 35 each, blends of two fifths
    # flipped back, what was made upside-down is in the half that fits
    flipped = [x[:, ::-1].tobytes() for x in images.groups["made: upside-down"].read()]
    assert set(flipped) <= set(groups[FIT])
    again = {name: [x.tobytes() for x in group.read()] for name, group in images.groups.items()}
    assert again == groups


def test_files_are_taken_in_the_order_of_their_hashes_once_each(clothes_folder: Path, tmp_path: Path) -> None:
    sources = list_inputs([str(clothes_folder)])
    for source in sources[:10]:
        (tmp_path / f"copy of {source.id}").write_bytes(source.path.read_bytes())
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "empty.png").touch()
    more = list_inputs([str(clothes_folder), str(tmp_path)])
    taken = take_files(more, SHAPE, 1000)
    assert [sha256 for _, sha256 in taken.files] == sorted(digest(source) for source in sources)
    assert Counter(name.rpartition("/")[2] for name, _ in taken.set_aside) == {"broken.png": 1, "empty.png": 1}
    assert [sha for _, sha in take_files(more[::-1], SHAPE, 12).files] == [sha for _, sha in taken.files[:12]]


def test_too_few_files_are_refused_with_the_number_needed(clothes_folder: Path) -> None:
    sources = list_inputs([str(clothes_folder)])
    assert gather_images(sources[:FEWEST_IND], {}, SHAPE, 400).groups[FIT].count == FEWEST_IND // 2
    with pytest.raises(CalibrationError, match=rf"^{FEWEST_IND - 1} usable .* at least {FEWEST_IND} are needed"):
        gather_images(sources[: FEWEST_IND - 1], {}, SHAPE, 400)
    with pytest.raises(CalibrationError, match=r"raise --images"):
        gather_images(sources, {}, SHAPE, FEWEST_IND - 1)
    with pytest.raises(CalibrationError, match=r"OOD set one has 1 usable"):
        gather_images(sources, {"one": sources[:1]}, SHAPE, 400)


def test_a_file_that_changes_during_a_tuning_ends_it(clothes_folder: Path, tmp_path: Path) -> None:
    for source in list_inputs([str(clothes_folder)])[:FEWEST_IND]:
        (tmp_path / source.id).write_bytes(source.path.read_bytes())
    images = gather_images(list_inputs([str(tmp_path)]), {}, SHAPE, 400)
    assert np.isfinite(np.stack(list(images.groups[IND].read()))).all()
    paths = sorted(tmp_path.iterdir())
    for path, other in zip(paths, [paths[-1].read_bytes()] * len(paths), strict=True):
        path.write_bytes(other)
    with pytest.raises(UsageError, match=r"changed while `diffood tune` ran"):
        list(images.groups[IND].read())
