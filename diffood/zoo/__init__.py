"""The embedded default: a small trained UNet and classifier, real held-out images, a bundle of both."""

from pathlib import Path

FOLDER = Path(__file__).parent
UNET = FOLDER / "weights" / "unet"
CLASSIFIER = FOLDER / "classifier.py"
FACTORY = "paired_resnet"
CLASSIFIER_WEIGHTS = FOLDER / "weights" / "classifier.safetensors"
CLASS_NAMES = FOLDER / "weights" / "class_names.txt"
BUNDLE = FOLDER / "bundle"
