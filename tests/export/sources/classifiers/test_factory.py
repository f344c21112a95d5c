"""FILE.py:FACTORY as people write them: neighbours, packages, wrapped modules, and what goes wrong in them."""

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from refusals import assert_refused

from diffood.errors import ExportError
from diffood.export.graphs.modules import ClassifyGraph
from diffood.export.onnx.proof import export_onnx, run_onnx, run_torch
from diffood.export.sources.classifiers.classifier import Classifier, load_classifier
from diffood.export.sources.classifiers.source import ClassifierSource

NET = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.fc = nn.Linear(4, 3)
    def forward(self, x):
        return self.fc(torch.relu(self.conv(x)).mean((2, 3)))
"""
X = torch.linspace(0, 1, 2 * 64).reshape(2, 1, 8, 8)


def written(folder: Path, **files: str) -> Path:
    """A project's files, by their names without .py."""
    for name, text in files.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def load(spec: str, weights: Path | None = None) -> Classifier:
    return load_classifier(ClassifierSource(spec, weights), 8, 8)


def logits(found: Classifier) -> list[list[float]]:
    with torch.no_grad():
        return found.model(X)[0].tolist()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def expected() -> list[list[float]]:
    """Logits of `Net`."""
    space: dict[str, type[torch.nn.Module]] = {}
    exec(NET, space)
    with torch.no_grad():
        return space["Net"]()(X).tolist()  # type: ignore[no-any-return]


LAYOUTS: dict[str, tuple[dict[str, str], str]] = {
    "a neighbour": ({"blocks": NET, "net": "from blocks import Net\ndef build(): return Net()"}, "net.py:build"),
    "a neighbour asked late": (
        {"blocks": NET, "net": "def build():\n from blocks import Net\n return Net()"}, "net.py:build"),
    "a relative neighbour": ({"blocks": NET, "net": "from .blocks import Net as build"}, "net.py:build"),
    "a package": (
        {"top/__init__": "", "top/nets/__init__": "", "top/blocks": NET,
         "top/nets/net": "from ..blocks import Net\nfrom top.blocks import Net as same\ndef build(): return Net()"},
        "top/nets/net.py:build",
    ),
    "folders without __init__.py": (
        {"top/blocks": NET, "top/nets/net": "from ..blocks import Net\ndef build(): return Net()"},
        "top/nets/net.py:build",
    ),
    "a package whose own imports fail": ({"__init__": "1 / 0", "net": NET}, "net.py:Net"),
    "a folder called as a library": ({"onnx/__init__": "", "onnx/net": NET}, "onnx/net.py:Net"),
    "a neighbour called as a library": ({"onnx": "1 / 0", "net": NET}, "net.py:Net"),
    "a dataclass with postponed annotations": (
        {"net": "from __future__ import annotations\nfrom dataclasses import dataclass\n" + NET
         + "@dataclass\nclass Config:\n  width: int = 4\ndef build(): return Net()"},
        "net.py:build",
    ),
    "a module made already": ({"net": NET + "model = Net()"}, "net.py:model"),
    "a class's own maker": (
        {"net": NET + "class Zoo:\n  @staticmethod\n  def small(): return Net()"}, "net.py:Zoo.small"),
}  # fmt: skip


def test_a_file_is_imported_as_in_its_project(
    tmp_path: Path, expected: list[list[float]], subtests: pytest.Subtests
) -> None:
    for number, (name, (files, spec)) in enumerate(LAYOUTS.items()):
        with subtests.test(name):
            project = written(tmp_path / f"{number}", **files)
            assert logits(load(f"{project}/{spec}")) == expected


def test_another_projects_neighbour_of_the_same_name_is_another(tmp_path: Path) -> None:
    for project, width in (("a", 3), ("b", 5)):
        head = NET.replace("nn.Linear(4, 3)", f"nn.Linear(4, {width})")
        written(tmp_path / project, blocks=head, net="from blocks import Net")
        assert load(f"{tmp_path}/{project}/net.py:Net").classes == width


WRAPPED = {
    "compiled": "def build(): return torch.compile(Net())",
    "compiled twice, in parallel": "def build(): return torch.compile(nn.DataParallel(torch.compile(Net())))",
    "compiled in place": "def build():\n  net = Net()\n  net.compile()\n  return net",
    "compiled in parts": "def build():\n  net = Net()\n  net.conv = torch.compile(net.conv)\n  return net",
    "a compiled forward": "Net.forward = torch.compile(Net.forward)\ndef build(): return Net()",
    "averaged": "def build(): return torch.optim.swa_utils.AveragedModel(Net())",
    "autocast": "Net.forward = torch.autocast('cpu', dtype=torch.bfloat16)(Net.forward)\ndef build(): return Net()",
    "in double precision": "def build(): return Net().double()",
    "without gradients": "@torch.inference_mode()\ndef build(): return Net()",
}


def test_wrappers_of_training_are_taken_off(
    tmp_path: Path, expected: list[list[float]], subtests: pytest.Subtests
) -> None:
    for number, (name, text) in enumerate(WRAPPED.items()):
        with subtests.test(name):
            found = load(f"{written(tmp_path / f'{number}', net=NET + text)}/net.py:build")
            assert logits(found) == pytest.approx(torch.tensor(expected).numpy(), abs=1e-6)
            assert found.features_from.endswith("fc")
            assert bool(found.notes) == (name in ("autocast", "a compiled forward"))


def test_a_forward_under_autocast_is_exported_in_full_precision(tmp_path: Path) -> None:
    text = NET + "class Cast(Net):\n  def forward(self, x):\n    with torch.autocast('cpu'): return super().forward(x)"
    found = load(f"{written(tmp_path, net=text)}/net.py:Cast")
    graph = ClassifyGraph(found, 1, 8, 8).eval()
    export_onnx(graph, {"x": X}, ("logits", "features"), tmp_path / "net.onnx")
    x = {"x": 2 * X - 1}
    for ours, theirs in zip(
        run_torch(graph)(x), run_onnx(tmp_path / "net.onnx", ("logits", "features"))(x), strict=True
    ):
        assert ours == pytest.approx(theirs, abs=1e-6)


LAZY = """
class Lazy(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(3))
    def forward(self, x): return self.net(x)
"""


def test_lazy_layers_take_their_shapes_from_the_weights(tmp_path: Path) -> None:
    spec = f"{written(tmp_path, net=NET + LAZY)}/net.py:Lazy"
    space: dict[str, type[torch.nn.Module]] = {}
    exec(NET + LAZY, space)
    model = space["Lazy"]()
    model(X)
    torch.save(model.state_dict(), tmp_path / "net.pt")
    with torch.no_grad():
        assert logits(load(spec, tmp_path / "net.pt")) == model.eval()(X).tolist()
    with pytest.raises(ExportError, match="has lazy layers, whose weights do not exist yet: give --classifier-weights"):
        load(spec)


FAULTS: list[tuple[str, str]] = [
    ("absent", "no usable factory 'absent'; did you mean Net"),
    ("biuld", "no usable factory 'biuld'; did you mean build?"),
    ("mistaken", r"mistaken failed with AttributeError: .*no attribute 'nothing' \(net.py, line 14\)"),
    ("sized", "is called without arguments .*'classes'.*write a function"),
    ("count", "net.py:count is a int; name a function"),
    ("nothing", "returned NoneType, not a torch.nn.Module"),
    ("scripted", r"is TorchScript, which .*torch.jit.load\(FILE\).state_dict\(\).*onnx:net.onnx"),
    ("partly", r"holds TorchScript \(conv\)"),
    ("on_meta", "'conv.weight' .* on the device meta"),
    ("ended", r"ended the program \(SystemExit: 2\).*__main__"),
]
FAULTY = NET + """
def build(): return Net()
def mistaken(): return Net().nothing
def sized(classes): return Net()
count = 3
def nothing(): Net()
def scripted(): return torch.jit.script(Net())
def partly():
    net = Net()
    net.conv = torch.jit.script(net.conv)
    return net
def on_meta():
    with torch.device("meta"): return Net()
def ended(): raise SystemExit(2)
"""  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_what_is_wrong_in_a_factory_is_said(tmp_path: Path) -> None:
    written(tmp_path, net=FAULTY)
    assert_refused(ExportError, FAULTS, lambda name: load(f"{tmp_path}/net.py:{name}"))


IMPORTS = [
    ("import nowhere_to_be_found", r"ModuleNotFoundError: .*nowhere_to_be_found'? \(net.py, line 1\). Install it"),
    ("from .nowhere import x", r"ModuleNotFoundError: .*\(net.py, line 1\)"),
    ("def build(:", r"SyntaxError: .*\(net.py, line 1\)"),
    ("import sys\nsys.exit('usage: net.py DATA')", "SystemExit: usage: net.py DATA"),
    ("import blocks", r"ZeroDivisionError: .*\(blocks.py, line 1\)"),
]


def test_a_file_that_cannot_be_imported_is_explained(tmp_path: Path) -> None:
    written(tmp_path, blocks="1 / 0")
    assert_refused(ExportError, IMPORTS, lambda text: load(f"{written(tmp_path, net=text + '# ' * 99)}/net.py:build"))
