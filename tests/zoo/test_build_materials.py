"""Tests of how the surfaces of the colour pair are read, grouped and split, on pictures made here."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from diffood.errors import UsageError
from research.build_materials import (
    CLASSES,
    LEFT_OUT,
    PARTS,
    PICTURE,
    TILE,
    Picture,
    build,
    choose_parts,
    cut_tiles,
    group_pictures,
    material_of,
    read_pictures,
)
from research.datasets import channels_first, load_training_data
from research.left_out.sets import split_sets

MATERIALS = {
    "desert_cliff_1": "cliff",
    "new_alpine_citytile": "paving",
    "nubia/paving_stones_01": "paving",
    "dirt_rocks_a": "rocks",
    "desert_sand_dunes_100": "sand",
    "alpine_forrestfloor": "forest floor",
    "DirtTests": None,
    "temperate/grass_dirt_01": None,
    "sand_scrub_50": None,
    "snow 50": "snow",
    "steppe_grass_dirt_33": None,
    "savanna/grass_01_norm": None,
    "neon green": None,
}


def picture(name: str, seed: int, *, red: float = 1.0) -> Picture:
    """Noise that every seed makes anew; `red` recolours it."""
    pixels = np.random.default_rng(seed).integers(0, 256, (TILE, TILE, 3), np.uint8)
    pixels = np.kron(pixels, np.ones((PICTURE // TILE, PICTURE // TILE, 1))) * [red, 1, 1]
    grain = np.random.default_rng(seed + 1000).integers(0, 20, (PICTURE, PICTURE, 3))  # so that no two tiles are alike
    material = material_of(name)
    assert material is not None
    return Picture(name, material, np.minimum(pixels + grain, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def pictures() -> list[Picture]:
    """Four unlike pictures of each class, two of each other material, and a trained picture recoloured as mud."""
    words = {name: name.replace(" ", "") for name in (*CLASSES, *LEFT_OUT)}
    names = [f"{place}_{words[name]}" for name in CLASSES for place in ("alps", "coast", "steppe", "valley")]
    names += [f"{place}_{words[name]}" for name in LEFT_OUT for place in ("coast", "steppe")]
    made = [picture(name, seed) for seed, name in enumerate(names)]
    known = choose_parts(made, group_pictures(made)).index("known")
    return [*made, picture("river_mud", known, red=0.8)]


def test_a_name_tells_one_material_or_none() -> None:
    assert {name: material_of(name) for name in MATERIALS} == MATERIALS


def test_variants_of_a_picture_are_one_group_and_other_pictures_are_not() -> None:
    variants = [
        picture("a_road_1", 0),
        picture("a_road_2", 1),
        picture("temp_road_dry", 2),
        picture("temp_road_wet", 3),
    ]
    variants += [picture("cave_cliff", 4), picture("hill_mud", 4, red=0.7), picture("hill_sand", 5)]
    groups = group_pictures(variants).tolist()
    assert groups[0] == groups[1], "numbers tell variants apart"
    assert groups[2] == groups[3], "so do the words for it"
    assert groups[4] == groups[5], "one photograph in another colour"
    assert len(set(groups)) == 4


def test_no_part_shares_a_picture_or_a_pixel_with_the_tiles_trained_on(pictures: list[Picture]) -> None:
    arrays = build(pictures)
    sources = {part: {pictures[index].name for index in arrays[f"{part}_pictures"]} for part in PARTS}
    assert sources["train"] == sources["held_out"], "the known pictures, at other places"
    assert sources["train"].isdisjoint(sources["unseen"] | sources["left_out"])
    assert "river_mud" not in sources["left_out"], "it is a picture trained on, in another colour"
    tiles = {part: {tile.tobytes() for tile in arrays[part]} for part in PARTS}
    assert tiles["train"].isdisjoint(tiles["held_out"])
    assert len(tiles["held_out"]) == len(arrays["held_out"]), "no tile twice"
    columns = {part: set(range(PICTURE)[PARTS[part][1]]) for part in PARTS}
    assert columns["train"].isdisjoint(columns["held_out"])
    labels = {part: {material_of(pictures[i].name) for i in arrays[f"{part}_pictures"]} for part in PARTS}
    assert labels == {part: set(LEFT_OUT if part == "left_out" else CLASSES) for part in PARTS}
    again = build(pictures)
    assert all(np.array_equal(arrays[name], again[name]) for name in arrays)


def test_tiles_are_cut_in_order_and_those_of_one_colour_are_not() -> None:
    pixels = np.zeros((TILE, 3 * TILE, 3), np.uint8)
    pixels[:, : TILE // 2, 1] = 200
    pixels[:, 2 * TILE :, 2] = np.arange(TILE)
    assert np.array_equal(cut_tiles(pixels, TILE), [pixels[:, :TILE], pixels[:, 2 * TILE :]])


def test_the_archive_of_another_version_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "public.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing of it")
    with pytest.raises(UsageError, match=r"not the archive of 0ad-data 0\.0\.26-1: the 0 pictures"):
        read_pictures(tmp_path / "public.zip")


def test_the_file_is_training_data_in_colour(tmp_path: Path, pictures: list[Picture]) -> None:
    arrays = build(pictures)
    np.savez(tmp_path / "materials.npz", allow_pickle=False, **arrays)
    data = load_training_data(tmp_path / "materials.npz")
    assert (data.channels, data.side, data.classes) == (3, TILE, len(CLASSES))
    first = channels_first(data.images)
    assert first.shape == (len(data.labels), 3, TILE, TILE)
    assert np.array_equal(first[0, 2], arrays["train"][0][:, :, 2])
    assert data.without([0, 1]).classes == len(CLASSES) - 2


def test_near_sets_are_new_pictures_and_other_materials_and_far_ones_no_surfaces(
    tmp_path: Path, pictures: list[Picture]
) -> None:
    arrays = build(pictures)
    np.savez(tmp_path / "materials.npz", allow_pickle=False, photographs=arrays["unseen"][:9], **arrays)
    found = split_sets(tmp_path / "materials.npz", ())
    near = {f"near-{name}" for name in ("new pictures", *LEFT_OUT)}
    assert set(found) == {"train", "validation", "test", *near, "far-photos", "far-clothes", "far-digits"}
    assert {stored.images.shape[1:] for stored in found.values()} == {(TILE, TILE, 3)}
    wood = arrays["left_out"][arrays["left_out_labels"] == LEFT_OUT.index("wood")]
    assert np.array_equal(found["near-wood"].images, wood)
    assert not found["far-digits"].images[:, :2].any(), "digits have a black border"
