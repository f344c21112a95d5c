"""Makes the embedded image sets: python -m research.build_images --digits TGZ --animals WHL --output DIR.

Needs scikit-image installed, for the photographs it carries. The same inputs and the same libraries
give the same files, byte for byte. images.py reads the sets; images/README.md says what is in them.
"""

import argparse
import gzip
import importlib.util
import math
import pickletools
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from diffood.errors import UsageError
from diffood.zoo.images import SETS
from research.datasets import FASHION_MNIST, SIDE, Images, load_split, read_digits

SEED = 2211_11255  # the method's arXiv number; each set draws from its own stream of it
LEAST_CONTRAST = 12.0  # standard deviation in grey levels; below it a crop is sky or a wall
ANIMALS_MEMBER = "animal_mnist/data/Animal_MNIST/animal_data_version_3.gz"
TEXTURES = ("brick.png", "grass.png", "gravel.png")
TEXTURE_SIDES = (SIDE, 4 * SIDE)
# Those that skimage.data's docstrings call CC0 or public domain (not so: coins, moon, motorcycle), but for the
# motion-blurred clock, whose crops are all one smooth blob.
PHOTOGRAPHS = (
    "astronaut.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "hubble_deep_field.jpg",
    "retina.jpg",
    "rocket.jpg",
)
LEAST_PHOTO_SIDE = 2 * SIDE


def stream(name: str) -> np.random.Generator:
    """Start the random numbers of one set; a change to another set leaves them alone."""
    return np.random.default_rng([SEED, *name.encode()])


def first_of_each(images: Images, seen: set[bytes]) -> npt.NDArray[np.intp]:
    """Find the [N, 28, 28] images whose bytes occur neither in `seen` nor before; their indices. Adds to `seen`."""
    kept = []
    for index, image in enumerate(images):
        content = image.tobytes()
        if content not in seen:
            seen.add(content)
            kept.append(index)
    return np.array(kept, np.intp)


def sample(images: Images, name: str) -> Images:
    """Draw as many images as the set has from the distinct ones of [N, 28, 28] that are not flat, each once."""
    usable: Images = images[images.reshape(len(images), -1).std(axis=1) >= LEAST_CONTRAST]
    distinct: Images = usable[first_of_each(usable, set())]
    chosen: Images = distinct[stream(name).permutation(len(distinct))[: SETS[name].count]]
    return chosen


def fashion_sets(folder: Path) -> dict[str, dict[str, Images]]:
    """Cut three sets from one permutation of the t10k split, without any image the train split has too."""
    train, _ = load_split(folder, "train")
    images, labels = load_split(folder, "t10k")
    kept = first_of_each(images, {image.tobytes() for image in train})
    order = kept[stream("fashion-validation").permutation(len(kept))]
    sizes = [SETS[name].count for name in ("fashion-validation", "fashion-test", "upside-down")]
    validation, test, flipped, _ = np.split(order, np.cumsum(sizes))
    return {
        "fashion-validation": {"images": images[validation], "labels": labels[validation]},
        "fashion-test": {"images": images[test], "labels": labels[test]},
        "upside-down": {"images": np.stack([np.flipud(image) for image in images[flipped]])},
    }


def read_animals(wheel: Path) -> Images:
    """Read all silhouettes of the PyPI package `animal-mnist`, white on black.

    They are a pickled array. A pickle can run code when loaded, so this takes its one large bytes literal
    instead: pickletools only parses.
    """
    with zipfile.ZipFile(wheel) as package:
        pickled = gzip.decompress(package.read(ANIMALS_MEMBER))
    pixels = max((value for _, value, _ in pickletools.genops(pickled) if isinstance(value, bytes)), key=len)
    return np.frombuffer(pixels, np.uint8).reshape(-1, SIDE, SIDE)


def photograph_folder() -> Path:
    """Find the data folder of the installed scikit-image."""
    package = importlib.util.find_spec("skimage")
    if package is None or package.origin is None:
        raise UsageError("scikit-image is not installed, and its photographs are needed: pip install scikit-image.")
    return Path(package.origin).parent / "data"


def random_crop(
    picture: Image.Image, least: int, most: int, generator: np.random.Generator, reduced: int = SIDE
) -> Images:
    """Cut a random square of `least` to `most` pixels a side, antialias it down to uint8 of `reduced` pixels a side.

    The side is log-uniform, so that each doubling of scale has the same share.
    """
    side = round(math.exp(generator.uniform(math.log(least), math.log(most))))
    left = int(generator.integers(picture.width - side + 1))
    top = int(generator.integers(picture.height - side + 1))
    square = picture.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((reduced, reduced), Image.Resampling.LANCZOS))


def crops(name: str, files: tuple[str, ...], least: int, most: int | None) -> Images:
    """Cut the crops of one set in equal shares of the files, shuffled; `most` None means each picture's short side."""
    generator = stream(name)
    pictures = [Image.open(photograph_folder() / file).convert("L") for file in files]
    seen: set[bytes] = set()
    kept: list[Images] = []
    while len(kept) < SETS[name].count:
        picture = pictures[len(kept) % len(pictures)]
        crop = random_crop(picture, least, most or min(picture.size), generator)
        if crop.std() >= LEAST_CONTRAST and crop.tobytes() not in seen:
            seen.add(crop.tobytes())
            kept.append(crop)
    return np.stack(kept)[generator.permutation(len(kept))]


def main() -> None:
    """Build every set and print each file's name, shape and size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fashion", type=Path, default=FASHION_MNIST, help="folder of the Fashion-MNIST IDX files")
    parser.add_argument("--digits", type=Path, required=True, help="archive of the npm package mnist (mnist-1.1.0.tgz)")
    parser.add_argument("--animals", type=Path, required=True, help="wheel of the PyPI package animal-mnist 0.4")
    parser.add_argument("--output", type=Path, required=True, help="folder for the .npz files")
    arguments = parser.parse_args()

    sets = fashion_sets(arguments.fashion)
    sets["digits"] = {"images": sample(read_digits(arguments.digits)[0], "digits")}
    sets["animals"] = {"images": sample(read_animals(arguments.animals), "animals")}
    sets["textures"] = {"images": crops("textures", TEXTURES, *TEXTURE_SIDES)}
    sets["photos"] = {"images": crops("photos", PHOTOGRAPHS, LEAST_PHOTO_SIDE, None)}
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, arrays in sets.items():
        path = arguments.output / f"{name}.npz"
        np.savez_compressed(path, allow_pickle=False, **arrays)
        print(f"{path.name}: {arrays['images'].shape}, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
