"""The small bundle of the tests and the models that it was exported from; make_small_bundle.py made both."""

from pathlib import Path

DATA = Path(__file__).parent.parent / "data"
SMALL_BUNDLE, SMALL_MODELS = DATA / "small_bundle", DATA / "small_models"
UNET, SCHEDULER = SMALL_MODELS / "unet", SMALL_MODELS / "scheduler"
CLASSIFIER, CLASSIFIER_WEIGHTS = SMALL_MODELS / "small_net.py", SMALL_MODELS / "small_net.safetensors"
FACTORY = "small_net"
