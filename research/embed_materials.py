"""Puts the surfaces' models and images into the package: python -m research.embed_materials --help.

Weights are stored in float16, which halves their files; export and bench compute in float32 with what is stored. The
tables in docs/detection.md are of these weights:
    diffood export --unet diffood/zoo/data/materials/unet --classifier diffood/zoo/classifier.py:materials_resnet
        --classifier-weights diffood/zoo/data/materials/classifier.safetensors --output bundle
    python -m research.compare --materials materials.npz --bundle bundle --output compared.json
"""

import argparse
import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from diffood.zoo.images import COLOUR_SETS, FOLDER
from diffood.zoo.pairs import PAIRS
from research.build_images import first_of_each
from research.compare import FITTED_OF, TESTED
from research.datasets import Images
from research.train_unet import build_unet


def embed_weights(models: Path) -> None:
    """Round the weights of MODELS/unet and MODELS/classifier.safetensors, but for vectors of the latter, to float16."""
    pair = PAIRS["materials"]
    classes = len(pair.class_names.read_text().splitlines())
    unet = build_unet(classes, pair.shape.height, pair.shape.channels)
    unet.load_state_dict(load_file(models / "unet" / pair.unet_weights.name))
    unet.half().save_pretrained(pair.unet, safe_serialization=True)
    shutil.copytree(models / "scheduler", pair.weights / "scheduler", dirs_exist_ok=True)
    weights = load_file(models / "classifier.safetensors")
    halved = {name: value.to(torch.float16) if value.ndim > 1 else value for name, value in weights.items()}
    save_file(halved, pair.classifier_weights)


def choose_images(data: Path) -> dict[str, dict[str, Images]]:
    """The arrays of each embedded set, by name: distinct images of those that research.compare fits on and tests on."""
    with np.load(data, allow_pickle=False) as found:
        arrays = {name: found[name] for name in found.files}
    seen: set[bytes] = set()
    chosen = {}
    parts = {
        "surfaces-validation": ("held_out", slice(0, FITTED_OF)),
        "surfaces-test": ("held_out", slice(FITTED_OF, FITTED_OF + TESTED)),
        "surfaces-new": ("unseen", slice(None)),
        "surfaces-other": ("left_out", slice(None)),
        "photos-colour": ("photographs", slice(None)),
    }
    for name, (part, rows) in parts.items():
        entry, images = COLOUR_SETS[name], arrays[part][rows]
        kept = first_of_each(images, seen)
        if part == "left_out":  # as many of each material; shuffled, since the file is
            labels = arrays["left_out_labels"][kept]
            each = entry.count // len(arrays["left_out_classes"])
            kept = kept[[np.count_nonzero(labels[:at] == labels[at]) < each for at in range(len(kept))]]
        kept = kept[: entry.count]
        chosen[name] = {"images": images[kept]}
        if entry.role == "ind":
            chosen[name]["labels"] = arrays[f"{part}_labels"][rows][kept]
    return chosen


def main() -> None:
    """Write weights, class names and image sets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="file of build_materials")
    parser.add_argument("--models", type=Path, required=True, help="folder of train_unet and of classifier.safetensors")
    arguments = parser.parse_args()
    pair = PAIRS["materials"]
    pair.weights.mkdir(parents=True, exist_ok=True)
    with np.load(arguments.data, allow_pickle=False) as data:
        pair.class_names.write_text("\n".join(data["classes"]) + "\n")
    embed_weights(arguments.models)
    for name, arrays in choose_images(arguments.data).items():
        np.savez_compressed(FOLDER / f"{name}.npz", allow_pickle=False, **arrays)
    for path in (*pair.weights.rglob("*.*"), *(FOLDER / f"{name}.npz" for name in COLOUR_SETS)):
        print(f"{path.stat().st_size:9} {path}")


if __name__ == "__main__":
    main()
