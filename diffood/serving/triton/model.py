"""The model that Triton's Python backend runs: image files in, columns of their rows out. Only Triton imports it."""

import itertools
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils  # of the server; no package

from diffood.errors import DiffoodError
from diffood.runtime.decision import DecisionRule
from diffood.runtime.detector import Detector
from diffood.runtime.images.decode import ImageLimits
from diffood.runtime.json_reader import parse_object
from diffood.runtime.printable import escape_for_terminal
from diffood.runtime.sessions.choice import describe_engine
from diffood.serving.triton.config import INPUT, TritonSettings
from diffood.serving.triton.encoded import score_encoded
from diffood.serving.triton.python_backend import BUNDLE_FOLDER
from diffood.serving.triton.tensors import make_tensors


class TritonPythonModel:
    """One instance, in its own process and used by one thread. The names of both methods are Triton's."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the bundle next to model.py; an error becomes Triton's reason for not loading the model."""
        bundle = Path(args["model_repository"]) / args["model_version"] / BUNDLE_FOLDER
        try:
            settings = TritonSettings.of(parse_object(args["model_config"].encode()))
            self.detector = Detector.open(
                bundle,
                backend=settings.backend,
                precision=settings.precision,
                batch=settings.batch,
                threads=settings.threads,
            )
            self.rule = DecisionRule.of(self.detector.calibration())
        except DiffoodError as error:
            reason = escape_for_terminal(str(error))  # it may quote a hostile bundle
            raise pb_utils.TritonModelException(reason) from None
        self.limits = ImageLimits(settings.max_bytes, settings.max_pixels)
        session = self.detector.session
        engine = describe_engine(session.precision, session.backend, self.detector.why)
        pb_utils.Logger.log_info(f"{args['model_name']}: {engine}")

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer requests, with at most max_batch_size images in all; a refused image is a row like any other."""
        images = [pb_utils.get_input_tensor_by_name(request, INPUT).as_numpy().ravel().tolist() for request in requests]
        rows = iter(score_encoded(self.detector, self.rule, list(itertools.chain.from_iterable(images)), self.limits))
        responses = []
        for asked in images:
            tensors = make_tensors(list(itertools.islice(rows, len(asked))))
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor(*item) for item in tensors.items()]))
        return responses
