"""Measures detectors on classes that models never saw: python -m research.left_out --help."""

import argparse
from pathlib import Path

import torch

from research.datasets import FASHION_MNIST
from research.left_out.extract import extract


def main() -> None:
    """Parse the command line and run one of the two steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("extract", help="write what models say of all images to a cache")
    verb.add_argument("--models", type=Path, required=True, help="folder of classifier.safetensors, unet, scheduler")
    verb.add_argument("--data", type=Path, default=FASHION_MNIST)
    verb.add_argument("--without", type=int, nargs="+", required=True, help="classes that the models never saw")
    verb.add_argument("--limit", type=int, help="images of each set; all without")
    verb.add_argument("--threads", type=int, default=1)
    verb.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    extract(given.models, given.data, given.without, given.output, given.limit, given.threads)


if __name__ == "__main__":
    main()
