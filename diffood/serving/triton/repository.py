"""Makes a model's folder in a repository of NVIDIA Triton Inference Server: all of it or nothing."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from diffood.errors import UsageError
from diffood.runtime.writable import is_free, whole_folder

DEFAULT_NAME = "diffood"
DEFAULT_QUEUE_DELAY = 5000  # microseconds: less than the quickest pass over one image takes, of the embedded models
CONFIG = "config.pbtxt"
VERSION = "1"  # Triton's name for a model's first version
MOST_INSTANCES = 64
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")


@dataclass(frozen=True)
class ModelPlace:
    """Where a model goes, and what Triton is told of every model.

    Attributes:
        output: Folder of the repository; must not exist, or be empty.
        name: Of the model.
        instances: How many of the model the server runs at a time.
        queue_delay: Microseconds a request may wait for others to share its batch.
    """

    output: Path
    name: str = DEFAULT_NAME
    instances: int = 1
    queue_delay: int = DEFAULT_QUEUE_DELAY

    def require_possible(self) -> None:
        """Raise UsageError where the output exists, the name is invalid or a number impossible."""
        if not NAME.fullmatch(self.name):
            raise UsageError(
                f"{self.name!r} cannot be a model's name: use letters, digits and _ . - with a letter, a digit or _ "
                "first."
            )
        if self.queue_delay < 0:
            raise UsageError(f"A queue delay of {self.queue_delay} microseconds is not possible: choose 0 or more.")
        if not 1 <= self.instances <= MOST_INSTANCES:
            raise UsageError(f"{self.instances} instances are not possible: choose 1 to {MOST_INSTANCES}.")
        if not is_free(self.output):
            raise UsageError(
                f"{self.output} exists and is not an empty folder; choose another --output. Triton takes several "
                "repositories, and a model's folder can be moved from one into another."
            )

    @contextmanager
    def make(self) -> Iterator[Path]:
        """The model's folder to fill, elsewhere until it is whole."""
        with whole_folder(self.output) as repository:
            (repository / self.name).mkdir()
            yield repository / self.name
