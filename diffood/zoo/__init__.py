"""The embedded default: a small trained UNet and classifier, real held-out images, a bundle of both."""

from pathlib import Path

FOLDER = Path(__file__).parent
DATA = FOLDER / "data"
UNET = DATA / "weights" / "unet"
UNET_WEIGHTS = UNET / "diffusion_pytorch_model.safetensors"
CLASSIFIER = FOLDER / "classifier.py"
FACTORY = "paired_resnet"
CLASSIFIER_WEIGHTS = DATA / "weights" / "classifier.safetensors"
CLASS_NAMES = DATA / "weights" / "class_names.txt"
BUNDLE = DATA / "bundle"
