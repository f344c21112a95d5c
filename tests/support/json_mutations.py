"""Damage to records in JSON: of what they say, and of their bytes."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from image_mutations import mutate
from sealed import sealed

STRANGE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 0.5, -0.0, 1e308, float("nan"), float("inf"), 2**31, 2**63, 10**40),
    *("", "x", "x" * 5000, "../../outside", "/etc/passwd", "classify.onnx", "\x1b[31m\n", "\ud800", "ﷺ" * 100),
    *([], {}, [[]], [None], {"": None}, {"a": {"b": []}}, list(range(3000))),
)


def mutated_records(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """So many damaged versions of a record, the same for the same seed: half of what it says, half of its bytes.

    What it says is damaged by someone who gives it the hash of that.
    """
    rng, content = np.random.default_rng(seed), json.loads(data)
    for number in range(count):
        yield mutate(data, rng) if number % 2 else _change(content, rng)


def change_record(data: bytes, rng: np.random.Generator, *, seal: bool = True) -> bytes:
    """Damage what a record says; its bytes where it is no JSON."""
    try:
        content = json.loads(data)
        return _change(content, rng, seal=seal)
    except (ValueError, RecursionError):
        return mutate(data, rng)


def _change(content: Any, rng: np.random.Generator, *, seal: bool = True) -> bytes:
    changed = copy.deepcopy(content)
    for _ in range(rng.integers(1, 4)):
        places = list(_places(changed))
        if not places:
            break
        holder, key = places[rng.integers(len(places))]
        other_holder, other_key = places[rng.integers(len(places))]
        match rng.integers(5):
            case 0:
                del holder[key]
            case 1 | 2:
                holder[key] = copy.deepcopy(STRANGE[rng.integers(len(STRANGE))])
            case 3:
                holder[key] = copy.deepcopy(other_holder[other_key])
            case 4:
                holder[key] = [holder[key], copy.deepcopy(holder[key])]
    return sealed(changed) if seal and isinstance(changed, dict) else json.dumps(changed).encode()


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    """(holder, key) of every value in it."""
    keys = content.keys() if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
    for key in keys:
        yield content, key
        yield from _places(content[key])
