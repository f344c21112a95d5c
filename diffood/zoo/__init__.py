"""The embedded models and images. Its constants are of the default pair; diffood.zoo.pairs has all."""

from pathlib import Path

FOLDER = Path(__file__).parent
DATA = FOLDER / "data"
UNET = DATA / "weights" / "unet"
CLASSIFIER = FOLDER / "classifier.py"
FACTORY = "paired_resnet"
CLASSIFIER_WEIGHTS = DATA / "weights" / "classifier.safetensors"
CLASS_NAMES = DATA / "weights" / "class_names.txt"
BUNDLE = DATA / "bundle"
