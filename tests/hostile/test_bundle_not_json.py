"""Attack: a manifest that is not JSON, not an object, or made to exhaust a parser."""

import time
import tracemalloc
from pathlib import Path

import pytest
from attacks import undone
from sealed import edit_record, sealed

from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import MAX_MANIFEST_BYTES, open_bundle
from diffood.runtime.json_reader import MOST_CONTAINERS, MOST_VALUES, parse_json
from diffood.runtime.records import MAX_NAME

DAMAGED = {
    "empty": b"",
    "binary": bytes(range(256)),
    "cut off": b'{"format": 1, "image": {',
    "invalid UTF-8": b'{"format": "\xff"}',
    "UTF-16": '{"format": 3}'.encode("utf-16"),
    "deeply nested lists": b"[" * 200_000 + b"]" * 200_000,
    "deeply nested objects": b'{"format":' * 100_000 + b"1" + b"}" * 100_000,
    "only opening brackets": b"[" * MOST_CONTAINERS,
    "a number of a million digits": b'{"format": ' + b"9" * 1_000_000 + b"}",
}
TOO_MANY = {
    "brackets": (b"[" * (MAX_MANIFEST_BYTES - 1), "it has 4194303 lists and objects where at most 500000 are allowed"),
    "lists": (b"[" + b"[]," * 600_000 + b"0]", "it has 600001 lists and objects"),
    "objects": (b"[" + b"{}," * 600_000 + b"0]", "it has 600001 lists and objects"),
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


def test_more_values_than_any_record_has_are_refused_before_they_are_made(
    victim: Path, subtests: pytest.Subtests
) -> None:
    for name, (data, said) in TOO_MANY.items():
        with subtests.test(name=name), undone(victim):
            assert said in refusal(victim, data)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=f"it has {MOST_VALUES + 1} values where at most {MOST_VALUES} are"):
            parse_json(b"[" + b"0," * MOST_VALUES + b"0]")
        assert tracemalloc.get_traced_memory()[1] < 5 * MOST_VALUES  # the text, and no value
    finally:
        tracemalloc.stop()


def test_class_names_of_megabytes_are_refused(victim: Path) -> None:
    edit_record(victim / "manifest.json", lambda fields: fields["class_names"].__setitem__(0, "x" * 1_200_000))
    with pytest.raises(BundleError, match=f"class_names.0: String should have at most {MAX_NAME} characters"):
        open_bundle(victim)


def test_json_that_is_no_manifest_is_refused(victim: Path, subtests: pytest.Subtests) -> None:
    for name, data in NOT_A_MANIFEST.items():
        with subtests.test(name=name), undone(victim):
            assert "is invalid" in refusal(victim, data)


def test_a_manifest_of_ten_megabytes_is_refused_unread(victim: Path) -> None:
    message = refusal(victim, b"[" * 10_000_000)
    assert f"has 10000000 bytes where at most {MAX_MANIFEST_BYTES} are allowed" in message
