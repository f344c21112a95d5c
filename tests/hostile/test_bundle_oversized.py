"""Attack: sizes that do not agree: claims of gigabytes, and gigabytes where kilobytes were claimed."""

import hashlib
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attacks import undone

from diffood.errors import BundleError
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.bundle.files import MAX_FILE_BYTES

Rewrite = Callable[[Callable[[dict[str, Any]], object]], None]

MAX_MEMORY = 64 * 2**20  # the bundle has 8 MB; the files in question claim or have gigabytes


def refusal(folder: Path) -> str:
    tracemalloc.start()
    try:
        with pytest.raises(BundleError) as caught:
            open_bundle(folder)
        assert tracemalloc.get_traced_memory()[1] < MAX_MEMORY
    finally:
        tracemalloc.stop()
    return str(caught.value)


def test_a_huge_sparse_file_is_refused_unread(victim: Path) -> None:
    with (victim / "classify.onnx").open("r+b") as file:
        file.truncate(64 * 2**30)
    assert f"classify.onnx has {64 * 2**30} bytes where at most" in refusal(victim)


def test_a_file_shorter_than_its_claim_is_refused_without_setting_the_claim_aside(
    victim: Path, rewrite: Rewrite
) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["files"]["classify.onnx"] = {"sha256": "0" * 64, "size": 2 * 2**30}

    rewrite(change)
    assert "classify.onnx was changed after export" in refusal(victim)


def test_a_file_longer_than_its_claim_is_refused(victim: Path, rewrite: Rewrite) -> None:
    size = (victim / "classify.onnx").stat().st_size
    rewrite(lambda manifest: manifest["files"]["classify.onnx"].update({"size": size - 1}))
    assert f"classify.onnx has {size} bytes where at most {size - 1} are allowed" in refusal(victim)


def test_a_file_with_a_byte_appended_is_refused(victim: Path) -> None:
    with (victim / "golden.npz").open("ab") as file:
        file.write(b"\0")
    assert "golden.npz has" in refusal(victim)


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the system does not say how much was read")
def test_links_to_one_file_are_hashed_once(victim: Path, rewrite: Rewrite) -> None:
    """With the right hash under each name; it would take minutes where the file is a sparse one of gigabytes."""
    large, size, names = victim / "large.bin", 2**24, [f"link{number}.bin" for number in range(12)]
    with large.open("wb") as file:
        file.truncate(size)
    sha256 = hashlib.sha256(bytes(size)).hexdigest()
    (victim / "calibrations").mkdir()
    for name in names:
        (victim / name).hardlink_to(large)
        (victim / "calibrations" / name).hardlink_to(large)
    rewrite(lambda manifest: manifest["files"].update({name: {"sha256": sha256, "size": size} for name in names}))
    before = bytes_read()
    assert open_bundle(victim).digest
    assert bytes_read() - before < 3 * size  # once when it is opened, once for the digest
    rewrite(lambda manifest: manifest["files"]["link7.bin"].update({"sha256": "0" * 64}))
    assert "link7.bin was changed after export" in refusal(victim)


def bytes_read() -> int:
    """What this process has read so far."""
    return int(Path("/proc/self/io").read_text("ascii").split()[1])


def test_an_impossible_size_is_refused(victim: Path, rewrite: Rewrite, subtests: pytest.Subtests) -> None:
    for size in [-1, MAX_FILE_BYTES + 1, 2**64, 1e30, "many", None]:
        with subtests.test(size=size), undone(victim):
            rewrite(lambda manifest: manifest["files"]["classify.onnx"].update({"size": size}))
            assert "files.classify.onnx.size" in refusal(victim)
