"""How much memory an export takes over the weights: measured in a process of its own, against one of a tiny model."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("resource", reason="peak memory as POSIX tells it")

ALLOWED = 3  # times the weights in FP32, torch's own and those of every copy together

pytestmark = pytest.mark.slow

PROGRAM = """
import tempfile
from pathlib import Path
import torch
from torch import nn
from diffood.bench.machine import peak_resident_bytes
from diffood.export.graphs.writing import GraphWriter, write_graphs
from diffood.export.sources.classifiers.classifier import Classifier
from diffood.export.sources.classifiers.preprocessing import Preprocessing
from diffood.export.sources.unets.unet import UNet

class Products(nn.Module):
    '''A UNet's face, whose weights are all there is: six products of `width` x `width`.'''
    def __init__(self, width):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(6))
        for index, layer in enumerate(self.layers):
            layer.weight.data = torch.eye(width).roll(index, 0)  # equal weights would be written once
    def forward(self, x, time, class_labels, return_dict):
        rows = x.flatten(1) + time[:, None].to(x.dtype)
        for layer in self.layers:
            rows = layer(rows)
        return (rows.reshape(-1, *x.shape[1:]),)

class Means(nn.Module):
    def forward(self, image):
        rows = image.flatten(2).mean(2)
        return rows, rows

def export(side):
    model = Products(side * side).eval().requires_grad_(False)
    weights = sum(4 * parameter.numel() for parameter in model.parameters())
    unet = UNet(model, 1, side, side, 0, 'products', '0' * 64)
    classifier = Classifier(Means(), 1, Preprocessing(), 1, 1, 'its mean', 'means', '0' * 64, 0, 'as it is')
    with tempfile.TemporaryDirectory() as folder:
        writer = GraphWriter(Path(folder), unet, classifier, 10, torch.arange(10.0), 21, 2**16, print)
        graphs, _ = write_graphs(writer, ('fp32', 'fp16'))
    assert [graph.data for graph in graphs if graph.role == 'step_plain'] == ['step.weights', 'step.fp16.weights']
    return weights

export(16)
before = peak_resident_bytes()
weights = export(64)
print('TIMES', (peak_resident_bytes() - before) / weights)
"""


def test_an_export_takes_at_most_three_times_the_weights(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, timeout=600, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    times = float(done.stdout.rpartition("TIMES")[2])
    assert 1 < times <= ALLOWED, done.stdout  # below 1 the weights were never there, and nothing was measured
