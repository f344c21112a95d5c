"""Reads the JSON files that libraries write next to weights."""

from pathlib import Path
from typing import Any

from diffood.errors import ExportError
from diffood.runtime.json_reader import parse_object

MAX_CONFIG_BYTES = 2**20


def read_config(path: Path, limit: int = MAX_CONFIG_BYTES) -> dict[str, Any]:
    """Read a JSON object of at most `limit` bytes; ExportError otherwise."""
    if not path.is_file():
        raise ExportError(f"{path} is missing or no regular file; save the model again with diffusers.")
    if path.stat().st_size > limit:
        raise ExportError(f"{path} has {path.stat().st_size} bytes; a config is smaller. Check the file.")
    try:
        return parse_object(path.read_bytes(), finite=False)
    except ValueError as error:
        raise ExportError(f"{path} is invalid: {error}; save the model again with diffusers.") from None
