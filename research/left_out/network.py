"""The classifier of a split, for `diffood export --classifier research/left_out/network.py:of_seven`."""

from diffood.zoo.classifier import SmallResNet


def of_seven() -> SmallResNet:
    """Build the untrained network of seven classes of grey images."""
    return SmallResNet(classes=7)
