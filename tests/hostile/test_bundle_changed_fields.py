"""Attack: any one value in a record becomes another, with the hash of what it said, and with the right one."""

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from attacks import reopened
from cheap_calibration import calibrate_cheaply
from full_bundle import complete
from hypothesis import given, settings
from record_readers import READERS
from sealed import sealed
from small_models import SMALL_BUNDLE

from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.bundle.files import SEAL, hash_content
from diffood.runtime.printable import escape_for_terminal

NUMBERS = st.one_of(
    st.sampled_from(
        [0, -0.0, 0.0, -1, 1, 1.0, 2**31, 2**63, -(2**63), 10**40, 1e308, 5e-324, float("nan"), float("inf")]
    ),
    st.integers(),
    st.floats(),
)
VALUES = st.one_of(
    *(NUMBERS, st.none(), st.booleans(), st.text(max_size=20), st.sampled_from(["fp32", "fp16", "0" * 64, "nan", "1"])),
    st.recursive(NUMBERS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner)),
)


@pytest.fixture(scope="module")
def complete_bundle(tmp_path_factory: pytest.TempPathFactory, clothes_folder: Path) -> Path:
    """A small calibrated bundle with every record there can be; each example puts back what it changed."""
    path = Path(shutil.copytree(SMALL_BUNDLE, tmp_path_factory.mktemp("fields") / "bundle"))
    return complete(calibrate_cheaply(path, clothes_folder, 0.2))


def places(content: Any) -> Iterator[tuple[str | int, ...]]:
    """The way to every value in what JSON says."""
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in pairs:
        yield (key,)
        yield from ((key, *rest) for rest in places(value))


@st.composite
def changes(draw: st.DrawFn, content: dict[str, Any]) -> dict[str, Any]:
    """The content with one value changed, removed, or put under another name."""
    changed = copy.deepcopy(content)
    *way, last = draw(st.sampled_from(list(places(content))))
    holder: Any = changed
    for key in way:
        holder = holder[key]
    how, before = draw(st.sampled_from(["value", "value", "value", "type", "none", "name"])), holder[last]
    if how == "none":
        del holder[last]
    elif how == "name" and isinstance(holder, dict):
        holder[draw(st.sampled_from([str(last).upper(), f"{last} ", f"{last}\u200b", "x"]))] = holder.pop(last)
    elif how == "type":
        others = [str(before), [before], {"": before}]
        number = isinstance(before, int | float)
        holder[last] = draw(st.sampled_from([*others, float(before), int(before), bool(before)] if number else others))
    else:
        holder[last] = draw(VALUES)
    return changed


def is_part(found: Any, whole: Any) -> bool:
    """Whether all that JSON says is said by another too; where fields are left out, they have their defaults."""
    if isinstance(found, dict):
        return isinstance(whole, dict) and all(key in whole and is_part(found[key], whole[key]) for key in found)
    if isinstance(found, list):
        return isinstance(whole, list) and len(found) == len(whole) and all(map(is_part, found, whole))
    return bool(found == whole)


def assert_plain(error: BundleError) -> None:
    """A message is one line in which nothing acts and nothing is hidden, though letters may have no shape yet."""
    assert escape_for_terminal(str(error)) == str(error)


@settings(max_examples=150)
@given(name=st.sampled_from(list(READERS)), data=st.data())
def test_a_changed_value_is_refused_or_taken_as_it_is(complete_bundle: Path, name: str, data: st.DataObject) -> None:
    bundle, (path,) = open_bundle(complete_bundle), complete_bundle.glob(name)
    original, read = path.read_bytes(), READERS[name]
    before, content = read(bundle), json.loads(original)
    changed = data.draw(changes(content))
    try:
        path.write_text(json.dumps(changed))  # its hash is that of what it said
        if hash_content(changed) != hash_content(content):
            with pytest.raises(BundleError) as refused:
                read(reopened(bundle))
            assert_plain(refused.value)
        path.write_bytes(sealed(changed))
        try:
            found = read(reopened(bundle))
        except BundleError as lie:
            assert_plain(lie)
        else:  # a claim that nothing in the bundle denies is taken as it is written, or was a default left out
            assert found != before or is_part(json.loads(sealed(changed)) | {SEAL: ""}, content | {SEAL: ""})
    finally:
        path.write_bytes(original)
