"""Classifiers that end in a softmax, however it is written: their logits are taken, or they are refused."""

import itertools
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
from onnx import helper, numpy_helper
from refusals import assert_refused
from small_graphs import CLASSES, SIDE, small_graph
from torch import nn

from diffood.errors import ExportError
from diffood.export.onnx.proof import export_onnx
from diffood.export.sources.classifiers.classifier import Classifier, load_classifier
from diffood.export.sources.classifiers.features import find_features
from diffood.export.sources.classifiers.logits import require_logits, take_logits
from diffood.export.sources.classifiers.onnx_probabilities import find_probability_source
from diffood.export.sources.classifiers.source import ClassifierSource

node = helper.make_node
NUMBERS = {
    "shape": np.array([-1, CLASSES]),
    "square": np.array([-1, CLASSES, 1, 1]),
    "axis": np.array([1]),
    "first": np.array([0]),
    "past": np.array([CLASSES - 1]),
    "turned_round": np.arange(CLASSES)[::-1].copy(),
    "hundred": np.array(100, np.float32),
    "minus": np.array([-1], np.float32),
    "small": np.array(1e-7, np.float32),
    "one": np.array(1, np.float32),
    "by_class": np.linspace(1, 2, CLASSES, dtype=np.float32),
}
SOFTMAX = node("Softmax", ["scores"], ["p"], axis=1)
STABLE = [
    node("ReduceMax", ["scores"], ["m"], axes=[1], keepdims=1),
    node("Sub", ["scores", "m"], ["shifted"]),
    node("Exp", ["shifted"], ["e"]),
]
SUM = node("ReduceSum", ["e", "axis"], ["total"], keepdims=1)
# What comes after a Gemm that makes `scores`, and makes `out`.
LOOKED_THROUGH = {
    "reshaped": [SOFTMAX, node("Reshape", ["p", "shape"], ["out"])],
    "flattened": [SOFTMAX, node("Flatten", ["p"], ["out"])],
    "clipped": [SOFTMAX, node("Clip", ["p", "small", "one"], ["out"])],
    "percent": [SOFTMAX, node("Mul", ["hundred", "p"], ["out"])],
    "logarithm": [SOFTMAX, node("Add", ["p", "small"], ["q"]), node("Log", ["q"], ["out"])],
    "of four dimensions": [
        node("Reshape", ["scores", "square"], ["s"]), node("Softmax", ["s"], ["p"], axis=1),
        node("Flatten", ["p"], ["out"]),
    ],
    "pooled after": [
        node("Reshape", ["scores", "square"], ["s"]), node("Softmax", ["s"], ["p"], axis=1),
        node("GlobalAveragePool", ["p"], ["g"]), node("Squeeze", ["g"], ["out"]),
    ],
    "exponential of log": [node("LogSoftmax", ["scores"], ["l"], axis=1), node("Exp", ["l"], ["out"])],
    "written out": [node("Exp", ["scores"], ["e"]), SUM, node("Div", ["e", "total"], ["out"])],
    "written out, stable": [*STABLE, SUM, node("Div", ["e", "total"], ["out"])],
    "by reciprocal": [*STABLE, SUM, node("Reciprocal", ["total"], ["r"]), node("Mul", ["e", "r"], ["out"])],
    "by its norm": [*STABLE, node("LpNormalization", ["e"], ["out"], axis=1, p=1)],
    "log written out": [
        node("ReduceLogSumExp", ["scores"], ["l"], axes=[1], keepdims=1), node("Sub", ["scores", "l"], ["out"]),
    ],
    "log written out, stable": [
        *STABLE, SUM, node("Log", ["total"], ["t"]), node("Add", ["t", "m"], ["l"]),
        node("Sub", ["scores", "l"], ["out"]),
    ],
    "sigmoid": [node("Sigmoid", ["scores"], ["p"]), node("Dropout", ["p"], ["out"])],
}  # fmt: skip
REFUSED = {
    "one class left out": [SOFTMAX, node("Slice", ["p", "first", "past", "axis"], ["out"])],
    "in another order": [SOFTMAX, node("Gather", ["p", "turned_round"], ["out"], axis=1)],
    "turned round": [SOFTMAX, node("Mul", ["p", "minus"], ["out"])],
    "weighted by class": [SOFTMAX, node("Mul", ["p", "by_class"], ["out"])],
}
KEPT = {
    "scaled": [node("Mul", ["scores", "hundred"], ["s"]), node("Reshape", ["s", "shape"], ["out"])],
    "centred": [node("ReduceMean", ["scores"], ["m"], axes=[1]), node("Sub", ["scores", "m"], ["out"])],
    "of unit length": [node("LpNormalization", ["scores"], ["out"], axis=1, p=2)],
    "gated": [node("Sigmoid", ["scores"], ["gate"]), node("Mul", ["scores", "gate"], ["out"])],
}


def graph(tail: list) -> onnx.ModelProto:
    made = small_graph([node("Gemm", ["flat", "linear", "bias"], ["scores"], transB=1), *tail], outputs=["out"])
    made.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in NUMBERS.items())
    return made


def load(model: onnx.ModelProto, folder: Path, **options: str) -> Classifier:
    onnx.save(model, folder / "net.onnx")
    return load_classifier(ClassifierSource(f"onnx:{folder / 'net.onnx'}", **options), SIDE, SIDE)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    """The classifier that ends in its logits."""
    return load(small_graph(), tmp_path_factory.mktemp("plain"))


def test_logits_are_found_behind_probabilities(tmp_path: Path, plain: Classifier, subtests: pytest.Subtests) -> None:
    x = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    for name, tail in LOOKED_THROUGH.items():
        with subtests.test(name):
            found = load(graph(tail), tmp_path)
            for got, want in zip(found.model(x), plain.model(x), strict=True):
                assert torch.equal(got, want)
            assert "makes probabilities" in found.notes[0]


def test_logits_that_are_not_those_of_the_classes_one_by_one_are_refused(
    tmp_path: Path, subtests: pytest.Subtests
) -> None:
    for name, tail in REFUSED.items():
        with subtests.test(name):
            with pytest.raises(ExportError, match=r"out holds probabilities.*Name the logits by --logits-output"):
                load(graph(tail), tmp_path)
            assert load(graph(tail), tmp_path, logits="scores").notes == ("its logits are scores, as named",)


def test_outputs_that_are_no_probabilities_are_the_logits(tmp_path: Path, subtests: pytest.Subtests) -> None:
    for name, tail in KEPT.items():
        with subtests.test(name):
            assert load(graph(tail), tmp_path).notes == ("its logits are out, its output [batch, classes]",)


def test_an_output_of_four_dimensions_is_taken(tmp_path: Path, plain: Classifier) -> None:
    tail = [node("Reshape", ["scores", "square"], ["s"]), node("Softmax", ["s"], ["out"], axis=1)]
    x = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    assert torch.equal(load(graph(tail), tmp_path).model(x)[0], plain.model(x)[0])


def test_named_probabilities_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"gives probabilities: its outputs are 0 or more and sum to 1 on 4"):
        load(graph([SOFTMAX, node("Identity", ["p"], ["out"])]), tmp_path, logits="p")


class Net(nn.Module):
    """A small classifier of which the end is given; `conv` has its head before the pooling."""

    def __init__(self, end: nn.Module, *, conv: bool = False) -> None:
        super().__init__()
        self.stem, self.end = nn.Conv2d(3, 6, 3), end
        self.head = nn.Conv2d(6, CLASSES, 1) if conv else nn.Linear(6, CLASSES)
        self.conv = conv

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.stem(x).relu()
        return self.end(self.head(maps).mean((2, 3)) if self.conv else self.head(maps.mean((2, 3))))


class Percent(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 100 * torch.softmax(2 * x, 1)


class WrittenOut(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        e = (x - x.amax(1, keepdim=True)).exp()
        return e / e.sum(1, keepdim=True)


X = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


ENDS = [  # of a module, and what its end is called
    (nn.Softmax(1), "softmax"),
    (nn.LogSoftmax(1), "log_softmax"),
    (nn.Sigmoid(), "sigmoid"),
    (WrittenOut(), "softmax"),
]


def test_a_module_that_ends_in_a_softmax_gives_its_logits(subtests: pytest.Subtests) -> None:
    for (end, name), conv in itertools.product(ENDS, (False, True)):
        with subtests.test(end=end, conv=conv), torch.no_grad():
            torch.manual_seed(0)
            net = Net(end, conv=conv).eval()
            wrapped, _ = find_features(net, X, CLASSES)
            before, features = wrapped(X)
            assert torch.equal(before, net(X))
            assert take_logits(wrapped, X) == (
                f"it ends in {name}: its logits are what goes into that, the output of its layer head"
            )
            net.end = nn.Identity()
            logits, again = wrapped(X)
            assert torch.equal(logits, net(X))
            assert torch.equal(features, again)


def test_a_module_that_ends_in_logits_is_left_as_it_is() -> None:
    wrapped, _ = find_features(Net(nn.Identity()).eval(), X, CLASSES)
    assert take_logits(wrapped, X) == ""
    assert not wrapped.gives_last_output


def test_outputs_that_cannot_be_logits_are_refused() -> None:
    z = torch.randn(4, CLASSES, generator=torch.Generator().manual_seed(0))
    cases = [
        (z.softmax(1), "0 or more and sum to 1 on 4 different images"),
        (100 * z.softmax(1), "sum to 100"),
        (z.softmax(1).half().float(), "sum to 1"),
        (z.softmax(1).clip(1e-3, 1), "sum to 1"),
        (z.log_softmax(1), "are logarithms of numbers that sum to 1"),
        (z[:1].repeat(4, 1), "the same output for 4 very different images"),
        (z / 0, "not finite"),
    ]
    assert_refused(ExportError, cases, lambda outputs: require_logits(outputs, "net.py:build"))


def test_other_outputs_are_let_through() -> None:
    z = torch.randn(4, CLASSES, generator=torch.Generator().manual_seed(0))
    for outputs in (z, z.relu(), z - 10, z / 1000, nn.functional.normalize(z), z - z.mean(1, keepdim=True)):
        require_logits(outputs, "net.py:build")


def test_probabilities_are_seen_in_what_torch_exports(tmp_path: Path, subtests: pytest.Subtests) -> None:
    probabilities = [nn.Softmax(1), nn.LogSoftmax(1), nn.Sigmoid(), Percent(), WrittenOut()]
    for end, made in [*((end, True) for end in probabilities), (nn.Identity(), False)]:
        with subtests.test(end=end):
            export_onnx(Net(end).eval(), {"x": X[:2]}, ("logits",), tmp_path / "net.onnx")
            assert bool(find_probability_source(onnx.load(tmp_path / "net.onnx"), "logits")) == made
