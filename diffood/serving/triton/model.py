"""The model that Triton's Python backend runs: image files in, the columns of their rows out. Imported there alone."""

import itertools
import json
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils  # of the server; no package

from diffood.errors import DiffoodError
from diffood.runtime.decision import Rule
from diffood.runtime.detector import Detector
from diffood.runtime.images.decode import Limits
from diffood.runtime.records import escape_for_terminal
from diffood.serving.triton.encoded import score_encoded
from diffood.serving.triton.repository import BUNDLE_FOLDER, INPUT, Settings, make_tensors


class TritonPythonModel:
    """One instance: a process of its own, asked by one thread. The names of both methods are Triton's."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the bundle beside model.py; what forbids it becomes Triton's reason for not loading the model."""
        bundle = Path(args["model_repository"]) / args["model_version"] / BUNDLE_FOLDER
        try:
            settings = Settings.of(json.loads(args["model_config"]))
            self.detector = Detector.open(
                bundle,
                backend=settings.backend,
                precision=settings.precision,
                batch=settings.batch,
                threads=settings.threads,
            )
            self.rule = Rule.of(self.detector.calibration())
        except DiffoodError as error:
            raise pb_utils.TritonModelException(
                escape_for_terminal(str(error))
            ) from None  # it may quote a hostile bundle
        self.limits = Limits(settings.max_bytes, settings.max_pixels)
        session = self.detector.session
        pb_utils.Logger.log_info(f"{args['model_name']}: {session.precision} on {session.backend}, {self.detector.why}")

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer requests, of max_batch_size images together at most; a refused image is a row like another."""
        images = [pb_utils.get_input_tensor_by_name(request, INPUT).as_numpy().ravel().tolist() for request in requests]
        rows = iter(score_encoded(self.detector, self.rule, list(itertools.chain.from_iterable(images)), self.limits))
        responses = []
        for asked in images:
            tensors = make_tensors(list(itertools.islice(rows, len(asked))))
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor(*item) for item in tensors.items()]))
        return responses
