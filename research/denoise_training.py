"""Denoises training images for train_steady.py: python -m research.denoise_training --part 0 --output part0.npz.

They are guided as in a verdict, by the class that a bundle's classifier predicts, from three start times in turn.
Parts are disjoint, so that two processes can share the work; 5,000 images take four minutes of one core.
"""

import argparse
from pathlib import Path

import numpy as np

from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.detector import Detector
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
    bundle, denoised = open_bundle(bundle_path), np.zeros((len(chosen), *images.shape[1:]), np.float16)
    for first, start in enumerate(START_TIMES):
        plan = PLAIN.changed({"start_times": (start,), "stride": STRIDE, "repeats": 1})
        detector = Detector.load(bundle, plan, threads=1)
        items = ((index, images[chosen[index]][None]) for index in range(first, len(chosen), len(START_TIMES)))
        for index, evidence in detector.observe(items):
            assert evidence.denoised is not None
            denoised[index] = evidence.denoised[0]
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
