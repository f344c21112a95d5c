"""Reads the JSON files that libraries write next to weights."""

import json
from pathlib import Path
from typing import Any

from diffood.errors import ExportError

MAX_CONFIG_BYTES = 2**20


def read_config(path: Path, limit: int = MAX_CONFIG_BYTES) -> dict[str, Any]:
    """Read a JSON object of at most `limit` bytes; ExportError otherwise."""
    if path.stat().st_size > limit:
        raise ExportError(f"{path} has {path.stat().st_size} bytes; a config is smaller. Check the file.")
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ExportError(f"{path} is not JSON ({error}); save the model again with diffusers.") from None
    if not isinstance(config, dict):
        raise ExportError(f"{path} holds no JSON object; save the model again with diffusers.")
    return config
