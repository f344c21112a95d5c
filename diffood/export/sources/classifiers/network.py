"""Keeps the libraries of a source from the network, unless the user asks for a download."""

import contextlib
import os
from collections.abc import Iterator

_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """While inside, the Hugging Face libraries fetch nothing; afterwards they do as before."""
    from huggingface_hub import constants  # a dependency of diffusers

    before = {name: os.environ.get(name) for name in _VARIABLES}
    known = constants.HF_HUB_OFFLINE  # read from the variable at import; every fetch looks at it
    constants.HF_HUB_OFFLINE = True
    os.environ.update(dict.fromkeys(_VARIABLES, "1"))
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = known
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
