"""Denoises training images for train_steady.py: python -m research.denoise_training --part 0 --output part0.npz.

They are guided as in a verdict, by the class that a bundle's classifier predicts, from three start times in turn.
Parts are disjoint, so that two processes can share the work; 5,000 images take four minutes of one core.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from diffood.runtime.lanes import Trajectory, denoise

from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.detector import Detector
from diffood.runtime.images.pixels import from_pixels
from diffood.runtime.method.noise import content_key, draw_noise
from diffood.runtime.method.plan import PLAIN
from diffood.zoo import BUNDLE
from research.datasets import FASHION_MNIST, load_training_data

START_TIMES = (360, 480, 600)
STRIDE = 120
IMAGES = 5_000  # per part
SEED = 3


def denoise_part(bundle_path: Path, data: Path, part: int, output: Path) -> None:
    """Write the chosen indices int64 [N] and x̂ float16 [N, 28, 28] in [-1, 1] of one part."""
    images = load_training_data(data).images
    chosen = np.random.default_rng(SEED).permutation(len(images))[part * IMAGES : (part + 1) * IMAGES]
    x = from_pixels(images[chosen][:, None])
    bundle = open_bundle(bundle_path)
    plan = PLAIN.changed({"start_times": START_TIMES, "stride": STRIDE})
    detector, tables = Detector.load(bundle, plan, threads=1), bundle.tables(plan)
    labels = detector.session.classify(x).logits.argmax(axis=1)

    def trajectories() -> Iterator[Trajectory[int]]:
        for index, image in enumerate(x):
            table = tables[index % len(tables)]
            signal, noise = table.noise_scale
            drawn = draw_noise(content_key(image), plan.seed, 0, image.shape)
            noised = np.float32(signal) * image + np.float32(noise) * drawn
            yield Trajectory(index, noised, table, int(labels[index]), plan.guidance)

    denoised = np.zeros((len(x), *images.shape[1:]), np.float16)
    for index, found in denoise(detector.session, trajectories()):
        denoised[index] = np.clip(found[0], -1, 1)
    np.savez(output, allow_pickle=False, chosen=chosen, denoised=denoised)


def main() -> None:
    """Parse the command line and denoise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    parser.add_argument("--data", type=Path, default=FASHION_MNIST)
    parser.add_argument("--part", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    denoise_part(arguments.bundle, arguments.data, arguments.part, arguments.output)


if __name__ == "__main__":
    main()
