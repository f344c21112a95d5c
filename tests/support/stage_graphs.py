"""Runs assembled graphs on ONNX Runtime, stage by stage, and measures a plan's witnesses on what they give."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from diffood.runtime.assembly.detector import build_detector
from diffood.runtime.assembly.recipe import Recipe, list_stages
from diffood.runtime.assembly.stage import build_stage
from diffood.runtime.method.scoring import Float
from diffood.runtime.method.witnesses.logits import energy, logit_norm
from diffood.runtime.method.witnesses.registry import WITNESSES

Pixels = npt.NDArray[np.uint8]
Found = dict[str, npt.NDArray[Any]]


def run_stage(model: bytes, **feeds: npt.NDArray[Any]) -> Found:
    """Every output by name, on one thread."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads, settings.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def run_plan(recipe: Recipe, pixels: Pixels) -> Found:
    """All stages, one after the other."""
    found: Found = {}
    for stage in list_stages(recipe.plan):
        feeds = {name: found[name] for name in ("logits", "features")} if found else {}
        for name, value in run_stage(build_stage(recipe, stage), image=pixels, **feeds).items():
            found[name] = np.concatenate([found[name], value], axis=1) if name in found else value
    return found


def assert_whole_agrees(recipe: Recipe, pixels: Pixels, expected: Any) -> None:
    """Compare the detector's one graph, before it is calibrated, with what second_writing.by_hand gives."""
    found = run_stage(build_detector(recipe, None), image=pixels)
    np.testing.assert_allclose(found["jump"], expected.by_start.mean(axis=1), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found["denoised"], expected.denoised[:, 0, -1], rtol=0, atol=1e-4)
    np.testing.assert_allclose(found["logits"], expected.logits, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(found["predicted_class"], expected.logits.argmax(axis=1))
    assert found["sound"].all()


OF_LOGITS = {
    "logit_norm": logit_norm,
    "energy": energy,
    "max_logit": lambda logits: -float(logits.max()),
    "msp": lambda logits: -1 / float(np.exp(logits.astype(np.float64) - logits.max()).sum()),
}


def witness_values(found: Found, names: tuple[str, ...], repeats: int) -> Float:
    """Values [N, W] of the named witnesses after so many repeats."""

    def values(name: str) -> Float:
        if name in OF_LOGITS:
            return np.array([OF_LOGITS[name](row) for row in found["logits"]])
        mean = found[name][:, :repeats].mean(axis=(1, 2), dtype=np.float64)
        return np.sqrt(mean) if WITNESSES[name].reduce == "root" else mean

    return np.stack([values(name) for name in names], axis=1)
