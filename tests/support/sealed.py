"""Records of a bundle that a test has edited, with the hash of what they say now: for what only a liar would write."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffood.runtime.bundle.files import SEAL, hash_content


def sealed(fields: dict[str, Any]) -> bytes:
    """A record's file that says this; a hash among the fields, of what it said before, is replaced."""
    content = {name: value for name, value in fields.items() if name != SEAL}
    return json.dumps(content | {SEAL: hash_content(content)}).encode()


def edit_record(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Let a function change the parsed record in a file, and write it back."""
    fields = json.loads(path.read_bytes())
    change(fields)
    path.write_bytes(sealed(fields))
