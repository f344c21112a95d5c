"""Another precision of a bundle's graphs without an export: FP32 graphs whose weights are rounded to FP16."""

from pathlib import Path

import numpy as np
import pytest
from halved_graphs import reseal

from diffood.runtime.bundle.bundle import Precision, open_bundle

ERROR = 2e-3  # relative, of FP16 weights


def add_rounded_graphs(bundle: Path, precision: Precision) -> None:
    """Add graphs with rounded weights to a copy of a bundle, as its graphs of another precision."""
    onnx = pytest.importorskip("onnx")
    graphs = []
    for entry in open_bundle(bundle).manifest.graphs:
        model = onnx.load(bundle / entry.file)
        for initializer in model.graph.initializer:
            values = onnx.numpy_helper.to_array(initializer)
            if values.dtype == np.float32:
                rounded = values.astype(np.float16).astype(np.float32)
                initializer.CopyFrom(onnx.numpy_helper.from_array(rounded, initializer.name))
        file = f"{entry.role}.{precision}.onnx"
        onnx.save(model, bundle / file)
        graphs.append(entry.model_dump(mode="json") | {"file": file, "precision": precision, "error": ERROR})
    reseal(bundle, lambda manifest: manifest["graphs"].extend(graphs))
