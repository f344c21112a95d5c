"""Attack: a manifest that is not JSON, not an object, or made to exhaust a parser."""

import time
from pathlib import Path

import pytest
from attacks import undone
from sealed import sealed

from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import MAX_MANIFEST_BYTES, open_bundle

DAMAGED = {
    "empty": b"",
    "binary": bytes(range(256)),
    "cut off": b'{"format": 1, "image": {',
    "invalid UTF-8": b'{"format": "\xff"}',
    "UTF-16": '{"format": 3}'.encode("utf-16"),
    "deeply nested lists": b"[" * 200_000 + b"]" * 200_000,
    "deeply nested objects": b'{"format":' * 100_000 + b"1" + b"}" * 100_000,
    "only opening brackets": b"[" * (MAX_MANIFEST_BYTES - 1),
    "a number of a million digits": b'{"format": ' + b"9" * 1_000_000 + b"}",
}
NOT_A_MANIFEST = {
    "list": b"[]",
    "number": b"1",
    "string": b'"manifest"',
    "null": b"null",
    "NaN": sealed({"format": float("nan")}),
    "lone surrogate": sealed({"format": 3, "default_plan": "\ud800"}),
    "a key twice": b'{"format": 3, "format": 3}',
    "a key twice within": b'{"image": {"height": 1, "height": 1}}',
    "no hash of itself": b'{"format": 3}',
}


def refusal(folder: Path, data: bytes) -> str:
    (folder / "manifest.json").write_bytes(data)
    started = time.monotonic()
    with pytest.raises(BundleError, match=r"manifest\.json") as caught:
        open_bundle(folder)
    assert time.monotonic() - started < 5
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 1000
    return message


def test_damaged_json_is_refused(victim: Path, subtests: pytest.Subtests) -> None:
    for name, data in DAMAGED.items():
        with subtests.test(name=name), undone(victim):
            assert "is invalid: it is not JSON: " in refusal(victim, data)


def test_json_that_is_no_manifest_is_refused(victim: Path, subtests: pytest.Subtests) -> None:
    for name, data in NOT_A_MANIFEST.items():
        with subtests.test(name=name), undone(victim):
            assert "is invalid" in refusal(victim, data)


def test_a_manifest_of_ten_megabytes_is_refused_unread(victim: Path) -> None:
    message = refusal(victim, b"[" * 10_000_000)
    assert f"has 10000000 bytes where at most {MAX_MANIFEST_BYTES} are allowed" in message
