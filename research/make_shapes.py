"""Draws 32x32 RGB shapes for trying `diffood train-unet`: python -m research.make_shapes --output shapes.

In-distribution are six shapes of any size, place, turn and two colours on a ground with a gradient; each is a class,
and a folder. Out-of-distribution are stars, crosses, hatched grounds without a shape, and tiles of the photographs that
foolbox carries. Nothing is downloaded; a seed fixes every pixel.
"""

import argparse
import functools
import importlib.util
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from diffood.errors import UsageError

SIDE, FINE = 32, 4  # pixels; drawn larger by FINE and shrunk, for soft edges
SPLITS = {"train": 1200, "validation": 300, "test": 100}  # images of a class
TILE = 64  # pixels of a photograph that make a tile
OOD = 400  # images of a set

Points = list[tuple[float, float]]


def polygon(corners: int, turn: float = 0.0, inner: float | None = None) -> Points:
    """Corners of a regular polygon in the unit circle; inner: every second one is at this radius, as in a star."""
    count = corners * (1 if inner is None else 2)
    radii = [1.0 if inner is None or index % 2 == 0 else inner for index in range(count)]
    angles = [2 * math.pi * index / count + turn for index in range(count)]
    return [(radius * math.cos(angle), radius * math.sin(angle)) for radius, angle in zip(radii, angles, strict=True)]


ARROW: Points = [(1, 0), (0.1, 0.8), (0.1, 0.3), (-1, 0.3), (-1, -0.3), (0.1, -0.3), (0.1, -0.8)]
CROSS: Points = [
    *[(1, 0.3), (0.3, 0.3), (0.3, 1), (-0.3, 1), (-0.3, 0.3), (-1, 0.3)],
    *[(-1, -0.3), (-0.3, -0.3), (-0.3, -1), (0.3, -1), (0.3, -0.3), (1, -0.3)],
]
CLASSES: dict[str, Points] = {
    "arrow": ARROW,
    "bar": [(1, 0.25), (-1, 0.25), (-1, -0.25), (1, -0.25)],
    "disc": polygon(40),
    "pentagon": polygon(5),
    "square": polygon(4),
    "triangle": polygon(3),
}
UNKNOWN: dict[str, Points] = {"star": polygon(5, inner=0.4), "cross": CROSS}


def draw_shape(outline: Points, random: np.random.Generator) -> Image.Image:
    """One shape on a ground with a gradient, SIDE x SIDE, RGB."""
    size = SIDE * FINE
    ground, ink = distinct_colours(random)
    ramp = np.linspace(-1, 1, size) * random.uniform(10, 40)
    shade = ramp[:, None, None] if random.random() < 0.5 else ramp[None, :, None]
    image = Image.fromarray(np.clip(ground + shade + np.zeros((size, size, 1)), 0, 255).astype(np.uint8))
    radius, turn = random.uniform(0.25, 0.42) * size, random.uniform(0, 2 * math.pi)
    x, y = random.uniform(radius, size - radius, 2)
    cosine, sine = radius * math.cos(turn), radius * math.sin(turn)
    turned = [(x + cosine * a - sine * b, y + sine * a + cosine * b) for a, b in outline]
    ImageDraw.Draw(image).polygon(turned, tuple(int(value) for value in ink))
    return image.resize((SIDE, SIDE), Image.Resampling.BOX)


def distinct_colours(random: np.random.Generator) -> np.ndarray:
    """Two colours [2, 3] far apart."""
    while True:
        colours = random.uniform(20, 236, (2, 3))
        if np.linalg.norm(colours[0] - colours[1]) > 120:
            return colours


def draw_hatching(random: np.random.Generator) -> Image.Image:
    """A ground of stripes in two colours, without a shape."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    angle, width = random.uniform(0, math.pi), random.uniform(3, 9)
    wave = np.sin(2 * math.pi * (rows * math.sin(angle) + columns * math.cos(angle)) / width + random.uniform(0, 6))
    first, second = distinct_colours(random)
    share = (wave[:, :, None] + 1) / 2
    return Image.fromarray((share * first + (1 - share) * second).astype(np.uint8))


def cut_tile(random: np.random.Generator) -> Image.Image:
    """A tile of one of foolbox's ImageNet samples."""
    found = importlib.util.find_spec("foolbox")
    if found is None or found.origin is None:
        raise UsageError("The photographs are foolbox's: pip install foolbox")
    files = sorted((Path(found.origin).parent / "data").glob("imagenet_*"))
    with Image.open(files[random.integers(len(files))]) as photograph:
        left, top = (int(random.integers(0, side - TILE)) for side in photograph.size)
        tile: Image.Image = photograph.convert("RGB").crop((left, top, left + TILE, top + TILE))
    return tile.resize((SIDE, SIDE), Image.Resampling.BOX)


def write(folder: Path, count: int, draw: Callable[[np.random.Generator], Image.Image], seed: int) -> None:
    """Write `count` images of a kind."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for index in range(count):
        draw(random).save(folder / f"{index:05}.png")


def main() -> None:
    """Parse the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    seed = 1000 * arguments.seed
    for split, count in SPLITS.items():
        for name, outline in CLASSES.items():
            seed += 1
            write(arguments.output / split / name, count, functools.partial(draw_shape, outline), seed)
    for name, outline in UNKNOWN.items():
        seed += 1
        write(arguments.output / "ood" / name, OOD, functools.partial(draw_shape, outline), seed)
    write(arguments.output / "ood" / "hatching", OOD, draw_hatching, seed + 1)
    write(arguments.output / "ood" / "photographs", OOD, cut_tile, seed + 2)


if __name__ == "__main__":
    main()
