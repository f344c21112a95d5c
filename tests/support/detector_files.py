"""Runs a bundle's detector file where it lies, as a program without diffood does, and compares it with Detector."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from diffood.runtime.bundle.bundle import DETECTOR_FILES
from diffood.runtime.detector import Detector

Pixels = npt.NDArray[np.uint8]
Answer = dict[str, npt.NDArray[Any]]


def run_file(path: Path, pixels: Pixels) -> Answer:
    """What a detector file answers where it lies, with the weights beside it."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads, settings.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, {"image": pixels}), strict=True))


def assert_answers_as_detector(path: Path, pixels: Pixels) -> Answer:
    """Score, p-value, threshold, verdict, class, confidence and stage of every image, in the calibrated precision."""
    detector = Detector.open(path, batch=16, threads=1)
    answer = run_file(path / DETECTOR_FILES[detector.session.precision], pixels)
    expected = detector.predict(pixels)
    np.testing.assert_allclose(answer["score"], expected.score, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(answer["p_value"], expected.p_value, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(answer["is_ood"], expected.is_ood)
    np.testing.assert_allclose(answer["threshold"], expected.threshold, rtol=1e-6)
    np.testing.assert_array_equal(answer["predicted_class"], expected.predicted)
    np.testing.assert_allclose(answer["confidence"], expected.confidence, rtol=1e-4)
    stages = [found.stage for _, found in detector.stream(enumerate(pixels))]
    np.testing.assert_array_equal(answer["stage"], stages)
    return answer
