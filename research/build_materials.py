"""Cuts the surfaces of a colour pair from a Debian package: python -m research.build_materials --help.

The package 0ad-data (CC BY-SA 3.0, Wildfire Games and contributors) holds photographs of ground in a game's
archive: unpack it with `dpkg-deb -x 0ad-data_0.0.26-1_all.deb FOLDER` and give FOLDER/usr/share/games/0ad/mods/public/
public.zip. A picture's material is read off its name; a name of two materials ("grass_dirt") is left out.

The split is that of the texture sets of Brodatz, Outex and Kylberg: a known picture is trained on at one place and held
out at another, with a gap between. No tile of the pictures of two further parts was trained on: `unseen` has other
pictures of the same materials, `left_out` has other materials. Variants of one picture (numbered, wet, recoloured) are
in one part. Crops of scikit-image's photographs in colour are in the file as well, so it has to be installed. The same
archive and libraries give the same file, byte for byte.

The models, and what detectors find with them:
    python -m research.train_classifier --data materials.npz --bf16 --epochs 6 --output models/classifier.safetensors
    python -m research.train_unet --data materials.npz --bf16 --steps 5000 --output models
    diffood export --unet models/unet --classifier diffood/zoo/classifier.py:materials_resnet
        --classifier-weights models/classifier.safetensors --output bundle
    python -m research.compare --materials materials.npz --bundle bundle --output compared.json
    python -m research.left_out extract --data materials.npz --models models --output materials-cache.npz
    python -m research.left_out table --caches materials-cache.npz

The classifier is right on 95.9 % of the held-out places and on 49.2 % of the unseen pictures: a tile of 32 pixels tells
a known surface, not a material in general. (300 random trees on colours and spectra, for comparison: 96.0 % at other
places, 52.9 % where whole pictures are held out, 46.1 % where their variants are too.)
"""

import argparse
import hashlib
import io
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from diffood.errors import UsageError
from research.build_images import PHOTOGRAPHS, photograph_folder, random_crop

SOURCES_SHA256 = "1f5b431958c5c3aaf561247b2d8f6cdcda01b26b585e7b2f3e33369bbf162d53"
"""Of the pictures' bytes in the order of their names, in package version 0.0.26-1."""
FOLDER = "art/textures/terrain/types/"
ENDING = ".cached.dds"
TILE = 32  # pixels
PICTURE = 256  # pixels a side after reduction, at which stones and leaves are still seen: 8 x 8 tiles
TRAINED_COLUMNS = slice(0, 176)  # of a known picture
HELD_OUT_COLUMNS = slice(192, PICTURE)
UNSEEN = 0.25  # share of a class's pictures that none is trained on, at least
MOST_UNSEEN = 0.35  # and at most: a group that would lead above it is trained on
PHOTOS_CUT = 500
LEAST_CONTRAST = 4.0  # standard deviation in grey levels; below it a tile is one colour
SEED = 2211_11255  # the method's arXiv number

CLASSES = ("cliff", "dirt", "forest floor", "grass", "paving", "rocks", "sand", "snow")
LEFT_OUT = ("coral", "farmland", "ice", "mud", "shrubs", "wood")
WORDS = {
    "cliff": "cliff mountainside",
    "dirt": "dirt dirta dirtc dirtd dirte",
    "forest floor": "forestfloor forrestfloor",
    "grass": "grass",
    "paving": "paving citytile city pavement road tile",
    "rocks": "rocks rock gravel pebbles stones stoney rocky",
    "sand": "sand dunes dune beach",
    "snow": "snow",
    "coral": "coral",
    "farmland": "farmland furrows",
    "ice": "ice icy glacial",
    "mud": "mud muddy",
    "shrubs": "shrubs plants scrub flora",
    "wood": "wood",
}
"""Words of a picture's name that tell its material."""
STRONGER = {frozenset(("dirt", "rocks")): "rocks", frozenset(("paving", "rocks")): "paving"}
"""Names of two materials that are pictures of one: stones on dirt, stones that pave."""
NO_PHOTOGRAPH = {"norm", "spec", "ao", "test", "tests", "volcanic"}
VARIANT = {
    "wet",
    "wetseason",
    "red",
    "brown",
    "aut",
    "autumn",
    "spring",
    "summer",
    "fall",
    "dry",
    "dirty",
    "rotate",
    "new",
}
"""Words that tell variants of one picture apart, as numbers and single letters do."""
SAME = 0.8  # correlation of grey levels at 32 x 32 above which two pictures are one photograph
PARTS = {  # of the file: which pictures, their columns, pixels from one tile to the next
    "train": ("known", TRAINED_COLUMNS, TILE // 2),
    "held_out": ("known", HELD_OUT_COLUMNS, TILE),
    "unseen": ("unseen", slice(None), TILE),
    "left_out": ("left_out", slice(None), TILE),
}
MOST = {"train": 2_500, "held_out": 400, "unseen": 200, "left_out": 300}  # tiles of a material


@dataclass(frozen=True)
class Picture:
    """One picture of a material, uint8 RGB [PICTURE, PICTURE, 3].

    Attributes:
        name: As in the archive, without folder and ending.
        material: One of CLASSES or LEFT_OUT.
        pixels: The reduced picture.
    """

    name: str
    material: str
    pixels: npt.NDArray[np.uint8]


def words_of(name: str) -> set[str]:
    """Lower-case words of a picture's name without digits: {"grass", "dirt"} of "steppe/Grass_dirt2_01"."""
    split = re.sub(r"([a-z])([A-Z])", r"\1 \2", name)
    return set(re.findall(r"[a-z]+", split.lower()))


def material_of(name: str) -> str | None:
    """Material that a picture's name tells; None for no or several materials, or what is no photograph."""
    words = words_of(name)
    if words & NO_PHOTOGRAPH or re.search(r"_(25|33|50|66|75)_?$", name):
        return None
    told = frozenset(material for material, known in WORDS.items() if words & set(known.split()))
    return STRONGER.get(told) or (next(iter(told)) if len(told) == 1 else None)


def stem_of(name: str) -> str:
    """Name without what tells variants apart: "temp grass" of temp_grass_01 and of temp_grass_b_aut."""
    return " ".join(sorted(word for word in words_of(name) - VARIANT if len(word) > 1))


def read_pictures(archive: Path) -> list[Picture]:
    """Read and reduce every picture of a known material, in the order of their names.

    Raises UsageError for the archive of another version.
    """
    pictures, digest = [], hashlib.sha256()
    with zipfile.ZipFile(archive) as package:
        for member in sorted(package.namelist()):
            name = member.removeprefix(FOLDER).removesuffix(ENDING).rsplit(".", 1)[0]
            material = material_of(name) if member.startswith(FOLDER) and member.endswith(ENDING) else None
            if material is None:
                continue
            data = package.read(member)
            digest.update(data)
            picture = Image.open(io.BytesIO(data)).convert("RGB")
            if min(picture.size) >= PICTURE:
                reduced = picture.resize((PICTURE, PICTURE), Image.Resampling.BOX)
                pictures.append(Picture(name, material, np.asarray(reduced)))
    if digest.hexdigest() != SOURCES_SHA256:
        raise UsageError(
            f"{archive} is not the archive of 0ad-data 0.0.26-1: the {len(pictures)} pictures of known materials "
            f"in it have the SHA-256 {digest.hexdigest()}, not {SOURCES_SHA256}; unpack that version of the package."
        )
    return pictures


def group_pictures(pictures: Sequence[Picture]) -> npt.NDArray[np.int64]:
    """Number the groups, int64 [N]: pictures of one stem, or of one photograph however coloured, are in one."""
    stems = {stem: index for index, stem in enumerate(sorted({stem_of(picture.name) for picture in pictures}))}
    groups = np.array([stems[stem_of(picture.name)] for picture in pictures], np.int64)
    grey = np.stack([_thumbnail(picture.pixels).ravel() for picture in pictures])
    alike = np.argwhere(np.triu(np.corrcoef(grey) > SAME, 1))
    for first, second in alike:
        groups[groups == groups[second]] = groups[first]
    return groups


def _thumbnail(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    step = PICTURE // TILE
    grey: npt.NDArray[np.float64] = pixels.mean(axis=2).reshape(TILE, step, TILE, step).mean(axis=(1, 3))
    return grey


def choose_parts(pictures: Sequence[Picture], groups: npt.NDArray[np.int64]) -> list[str]:
    """Say of each picture whether it is "known", "unseen", "left_out", or "dropped", the duplicate of a known one.

    Whole groups become unseen until each class has UNSEEN of its pictures among them.
    """
    materials = np.array([picture.material for picture in pictures])
    others = np.isin(materials, LEFT_OUT)
    unseen = np.zeros(len(pictures), bool)
    generator = np.random.default_rng(SEED)
    for name in CLASSES:
        here = materials == name
        for group in generator.permutation(np.unique(groups[here])):
            members = groups == group
            if np.mean(unseen[here]) < UNSEEN and np.mean((unseen | members)[here]) <= MOST_UNSEEN:
                unseen |= members
    known = ~unseen & ~others
    dropped = others & np.isin(groups, groups[known])
    return list(np.select([dropped, others, unseen], ["dropped", "left_out", "unseen"], "known"))


def cut_tiles(pixels: npt.NDArray[np.uint8], step: int) -> npt.NDArray[np.uint8]:
    """Cut a picture into tiles [N, TILE, TILE, 3] every `step` pixels, without those of one colour."""
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (TILE, TILE), axis=(0, 1))[::step, ::step]
    tiles = windows.reshape(-1, 3, TILE, TILE).transpose(0, 2, 3, 1)
    kept: npt.NDArray[np.uint8] = tiles[tiles.std(axis=(1, 2)).max(axis=1) >= LEAST_CONTRAST]
    return kept


def build(pictures: Sequence[Picture]) -> dict[str, npt.NDArray[np.generic]]:
    """Make the arrays of the file: tiles, labels and source pictures of each of PARTS, and the names of both."""
    chosen = choose_parts(pictures, group_pictures(pictures))
    generator = np.random.default_rng(SEED)
    arrays: dict[str, npt.NDArray[np.generic]] = {
        "classes": np.array(CLASSES), "left_out_classes": np.array(LEFT_OUT),
        "pictures": np.array([picture.name for picture in pictures]),
    }  # fmt: skip
    for part, (kind, columns, step) in PARTS.items():
        rows = []
        for label, name in enumerate(LEFT_OUT if part == "left_out" else CLASSES):
            here = [i for i, picture in enumerate(pictures) if picture.material == name and chosen[i] == kind]
            cut = [cut_tiles(pictures[index].pixels[:, columns], step) for index in here]
            tiles, origin = np.concatenate(cut), np.repeat(here, [len(tiles) for tiles in cut])
            drawn = generator.permutation(len(tiles))[: MOST[part]]
            rows.append((tiles[drawn], np.full(len(drawn), label, np.uint8), origin[drawn].astype(np.uint16)))
        tiles, labels, origin = map(np.concatenate, zip(*rows, strict=True))
        order = generator.permutation(len(labels))
        arrays |= {part: tiles[order], f"{part}_labels": labels[order], f"{part}_pictures": origin[order]}
    return arrays


def photographs() -> npt.NDArray[np.uint8]:
    """Cut PHOTOS_CUT squares [N, TILE, TILE, 3] of scikit-image's photographs in colour, in equal shares."""
    generator = np.random.default_rng(SEED)
    pictures = [Image.open(photograph_folder() / file) for file in PHOTOGRAPHS]
    colour = [picture.convert("RGB") for picture in pictures if picture.mode != "L"]
    cut = [
        random_crop(picture, 2 * TILE, min(picture.size), generator, TILE)
        for picture in colour
        for _ in range(PHOTOS_CUT // len(colour))
    ]
    return np.stack(cut)[generator.permutation(len(cut))]


def main() -> None:
    """Build the file and print what is in it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archive", type=Path, required=True, help="public.zip of Debian's 0ad-data 0.0.26-1")
    parser.add_argument("--output", type=Path, required=True, help="the .npz file to write")
    arguments = parser.parse_args()
    arrays = build(read_pictures(arguments.archive)) | {"photographs": photographs()}
    np.savez_compressed(arguments.output, allow_pickle=False, **arrays)
    for part in PARTS:
        for label, name in enumerate(LEFT_OUT if part == "left_out" else CLASSES):
            here = arrays[f"{part}_labels"] == label
            count = len(np.unique(arrays[f"{part}_pictures"][here]))
            print(f"{part:9} {name:13} {np.count_nonzero(here):5} tiles of {count:3} pictures")


if __name__ == "__main__":
    main()
