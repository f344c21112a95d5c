"""config.pbtxt of the model that decodes image files on the server, and the settings it reads back from there."""

import json
from typing import Annotated, Any

from pydantic import Field

from diffood.errors import UsageError
from diffood.runtime.backends import AUTO, BackendChoice, define
from diffood.runtime.detector import DEFAULT_BATCH
from diffood.runtime.images.decode import DEFAULT_MAX_BYTES, DEFAULT_MAX_PIXELS
from diffood.runtime.records import Record, explain_invalid
from diffood.runtime.sessions.choice import PrecisionChoice
from diffood.serving.triton.repository import ModelPlace
from diffood.serving.triton.tensors import OUTPUTS, TYPES

INPUT = "image"


class TritonSettings(Record):
    """How the server runs the bundle; written into config.pbtxt and read from there.

    Attributes:
        batch: Images that the engine works on at once, Triton's max_batch_size.
        threads: Threads of the engine; 0 for all cores.
        max_bytes: Larger files are refused.
        max_pixels: Larger images are refused.
    """

    backend: BackendChoice = "auto"
    precision: PrecisionChoice | None = None
    batch: int = DEFAULT_BATCH
    threads: int = 0
    max_bytes: Annotated[int, Field(ge=1)] = DEFAULT_MAX_BYTES
    max_pixels: Annotated[int, Field(ge=1)] = DEFAULT_MAX_PIXELS

    @property
    def parameters(self) -> dict[str, str]:
        """The parameters in config.pbtxt, all strings; batch is its max_batch_size."""
        return {name: str(value) for name, value in self if name != "batch" and value is not None}

    @classmethod
    def of(cls, config: dict[str, Any]) -> "TritonSettings":
        """Read the configuration that Triton gives to a model. Raises UsageError if it was edited to invalid values."""
        parameters = config.get("parameters", {}).items()
        ours = {name: entry.get("string_value") for name, entry in parameters if not name.isupper()}  # Triton's are
        with explain_invalid("config.pbtxt", "export it again", UsageError):
            return cls.model_validate({**ours, "batch": config["max_batch_size"]})


def make_config(settings: TritonSettings, place: ModelPlace) -> str:
    """The text of config.pbtxt."""
    if settings.backend == AUTO:
        kind = "kind: KIND_MODEL"  # the model chooses
    else:  # sessions use the first GPU there is
        kind = "kind: KIND_GPU gpus: [ 0 ]" if define(settings.backend).gpu else "kind: KIND_CPU"
    outputs = ",\n".join(
        f'  {{ name: "{column}" data_type: {TYPES[what][0]} dims: [ 1 ] }}' for column, what in OUTPUTS.items()
    )
    parameters = ",\n".join(
        f"  {{ key: {json.dumps(key)} value: {{ string_value: {json.dumps(value)} }} }}"
        for key, value in settings.parameters.items()
    )
    return f"""# Written by `diffood export-triton`; the model reads max_batch_size and the parameters from here.
name: "{place.name}"
backend: "python"
max_batch_size: {settings.batch}
input [
  {{ name: "{INPUT}" data_type: TYPE_STRING dims: [ 1 ] }}
]
output [
{outputs}
]
dynamic_batching {{ max_queue_delay_microseconds: {place.queue_delay} }}
instance_group [ {{ count: {place.instances} {kind} }} ]
parameters [
{parameters}
]
"""
