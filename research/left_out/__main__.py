"""Measures detectors on classes that models never saw: python -m research.left_out --help."""

import argparse
from pathlib import Path

import torch

from research.datasets import FASHION_MNIST
from research.left_out.extract import extract
from research.left_out.own import extract_own
from research.left_out.paths import extract_paths
from research.left_out.table import print_tables


def main() -> None:
    """Parse the command line and run one of the steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name, text in (
        ("extract", "write what models say of all images to a cache"),
        ("paths", "write what DiffPath and CFS need of them, at eleven UNet evaluations an image"),
    ):
        verb = verbs.add_parser(name, help=text)
        verb.add_argument(
            "--models", type=Path, required=True, help="folder of classifier.safetensors, unet, scheduler"
        )
        _add_common(verb)
    verb = verbs.add_parser("own", help="write what a bundle's own graphs say of them, beside a cache as NAME.own.npz")
    verb.add_argument("--bundle", type=Path, required=True, help="exported from the same models")
    _add_common(verb)
    verb = verbs.add_parser("table", help="print what every detector finds, in Markdown")
    verb.add_argument("--caches", type=Path, nargs="+", required=True, help="written by extract; paths lie beside them")
    given = parser.parse_args()
    if given.verb == "table":
        print_tables(given.caches)
        return
    if given.verb == "own":
        extract_own(given.bundle, given.data, given.without, given.output, given.limit, given.threads)
        return
    torch.set_num_threads(given.threads)
    write = extract if given.verb == "extract" else extract_paths
    write(given.models, given.data, given.without, given.output, given.limit, given.threads)


def _add_common(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--data", type=Path, default=FASHION_MNIST)
    verb.add_argument("--without", type=int, nargs="+", default=[], help="classes that the models never saw")
    verb.add_argument("--limit", type=int, help="images of each set; all without")
    verb.add_argument("--threads", type=int, default=1)
    verb.add_argument("--output", type=Path, required=True)


if __name__ == "__main__":
    main()
