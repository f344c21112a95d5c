"""Penultimate features of torch modules that return logits alone."""

import pytest

torch = pytest.importorskip("torch")
from torch import nn

from diffood.errors import ExportError
from diffood.export.sources.classifiers.features import find_features

CLASSES = 4
X = torch.rand(3, 3, 8, 6, generator=torch.Generator().manual_seed(0))


def squeeze() -> nn.Sequential:
    """A convolution as head, before the pooling, as SqueezeNet has it."""
    return nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, CLASSES, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )


def pooled() -> nn.Sequential:
    """A convolution as head, after the pooling, as MobileNetV3 of timm has it."""
    return nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Conv2d(5, CLASSES, 1), nn.Flatten())


class Tokens(nn.Module):
    """A linear head on every token, as some transformers have it; a linear layer next to it runs later."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.late = nn.Linear(3, 5), nn.Linear(5, CLASSES), nn.Linear(CLASSES, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.head(self.body(x.flatten(2).transpose(1, 2))).mean(1)
        return logits + 0 * self.late(logits).sum(1, keepdim=True)


def test_features_are_what_goes_into_the_last_layer(subtests: pytest.Subtests) -> None:
    for build, words, expected in [
        (squeeze, "its last convolution, 2, the mean over its 8x6 positions", lambda m: m[:2](X).mean((2, 3))),
        (pooled, "its last convolution, 2", lambda m: m[:2](X).flatten(1)),
        (
            Tokens,
            "its last linear layer, head, the mean over its 48 positions",
            lambda m: m.body(X.flatten(2).transpose(1, 2)).mean(1),
        ),
    ]:
        with subtests.test(build=build):
            torch.manual_seed(0)
            model = build().eval()
            with torch.no_grad():
                wrapped, where = find_features(model, X[:2], CLASSES)
                logits, features = wrapped(X)
                assert torch.equal(logits, model(X))
                assert torch.allclose(features, expected(model), atol=1e-6)  # type: ignore[operator]
            assert where == f"the input of {words}"


def test_a_module_without_a_last_layer_is_explained() -> None:
    model = nn.Sequential(nn.Conv2d(3, 9, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ExportError, match="no linear layer, and no convolution with one output per class"):
        find_features(nn.Sequential(model, nn.Softmax(1), nn.LPPool1d(2, 3)), X[:2], CLASSES)
