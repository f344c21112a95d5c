"""A bundle's FP32 graphs, each run by itself on ONNX Runtime, as nobody but the search for INT8 needs them."""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from diffood.export.onnx.samples import count_rows
from diffood.runtime.bundle.bundle import Bundle, Role
from diffood.runtime.bundle.graphs import read_graph
from diffood.runtime.method.scoring import Array
from diffood.runtime.sessions.onnxruntime import ProviderSettings, fixed_calls, start_session

Feeds = Mapping[str, npt.NDArray[np.generic]]
RunPart = Callable[[Feeds], Mapping[str, Array]]
"""Outputs [N, ...] by name for inputs [N, ...]; those that the graph does not take are left out."""


def load_part(bundle: Bundle, role: Role) -> RunPart:
    """Load a graph. Its calls all have the same number of rows, so that a row does not depend on how many there are."""
    graph, image, noised = read_graph(bundle, role, "fp32"), bundle.manifest.image, bundle.manifest.noised_shape
    height, width = noised[1:] if role.startswith("step") else (image.height, image.width)
    session = start_session(graph.model, ProviderSettings(), graph.outside)
    return fixed_calls(session, count_rows(height, width), threads=1).run
