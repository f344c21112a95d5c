"""Attack: an array file that expands to gigabytes, or is a zip file of a strange kind."""

import io
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from diffood.errors import BundleError
from diffood.runtime.bundle.arrays import load_arrays
from diffood.runtime.bundle.bundle import open_bundle

Reseal = Callable[[str, bytes], None]

MAX_MEMORY = 64 * 2**20


def npy_header(shape: str, descr: str = "<f8") -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return data.getvalue()


def claiming(data: bytes, size: int) -> bytes:
    """The zip file with the expanded size of its only member changed in the central directory."""
    at = data.rindex(b"PK\x01\x02")
    return data[: at + 24] + struct.pack("<I", size) + data[at + 28 :]


def refusal(data: bytes) -> str:
    tracemalloc.start()
    try:
        with pytest.raises(BundleError, match="noise is not a readable array file") as caught:
            load_arrays(data, "noise")
        assert tracemalloc.get_traced_memory()[1] < MAX_MEMORY
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_eight_gigabytes_of_zeros_are_refused_before_they_are_unpacked(victim: Path, reseal: Reseal) -> None:
    packed = io.BytesIO()
    # Ten members of 900 MB claims each: none above the limit alone, and each with as few real bytes as can be.
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for index in range(10):
            archive.writestr(f"a{index}.npy", npy_header("(112500000,)") + bytes(2**20))
    data = bytearray(packed.getvalue())
    at = 0
    while (at := data.find(b"PK\x01\x02", at)) >= 0:
        data[at + 24 : at + 28] = struct.pack("<I", 900_000_128)
        at += 4
    reseal("noise_levels.npz", bytes(data))
    with pytest.raises(BundleError, match=r"it expands to 9000001280 bytes where at most 268435456 are allowed"):
        open_bundle(victim)


def test_a_real_bomb_is_refused_before_it_is_unpacked() -> None:
    data = io.BytesIO()
    chunk = bytes(2**22)
    with (
        zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("alpha_bar.npy", "w") as member,
    ):
        member.write(npy_header(f"({2**30 // 8},)"))
        for _ in range(2**30 // len(chunk)):
            member.write(chunk)
    assert len(data.getvalue()) < 2**23
    assert "it expands to" in refusal(data.getvalue())


def test_a_member_that_hides_its_size_gives_no_more_than_it_claims() -> None:
    data = zipped({"alpha_bar.npy": npy_header(f"({2**25 // 8},)") + bytes(2**27)})
    refusal(claiming(data, 2**20))


def test_an_array_that_claims_more_than_its_member_holds_is_refused() -> None:
    header = npy_header(f"({2**62},)")
    refusal(zipped({"alpha_bar.npy": header + bytes(16)}))


def test_methods_that_unpack_without_bound_are_refused(subtests: pytest.Subtests) -> None:
    for method in [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]:
        with subtests.test(method=method):
            content = npy_header("(1000,)") + bytes(8000)
            assert "a method that numpy does not write" in refusal(zipped({"alpha_bar.npy": content}, method))


def test_a_directory_of_more_entries_than_any_array_file_has_is_refused_unread() -> None:
    assert "a directory of 1880000 bytes where at most 1048576" in refusal(
        b"PK\1\2".ljust(47, b"\0") * 40_000 + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 40_000, 40_000, 1_880_000, 0, 0)
    )


def test_a_member_that_is_no_array_is_refused() -> None:
    assert "is no array" in refusal(zipped({"alpha_bar": b"text"}))


def test_damage_inside_the_zip_is_refused() -> None:
    good = io.BytesIO()
    np.savez_compressed(good, alpha_bar=np.linspace(0.9, 0.1, 1000))
    data = good.getvalue()
    for at in (0, 4, 8, 30, 60, len(data) // 2, len(data) - 30, len(data) - 4):
        damaged = bytearray(data)
        damaged[at] ^= 0xFF
        try:
            assert load_arrays(bytes(damaged), "noise")["alpha_bar"].shape == (1000,)  # a byte that means nothing
        except BundleError as error:
            assert "noise is not a readable array file" in str(error)


def test_what_is_no_zip_is_refused(subtests: pytest.Subtests) -> None:
    for data in [b"", b"PK", b"PK\x03\x04" + bytes(100), npy_header("(2,)") + bytes(16), b"\x80\x04."]:
        with subtests.test(data=data):
            refusal(data)


def test_an_encrypted_member_is_refused() -> None:
    data = bytearray(zipped({"alpha_bar.npy": npy_header("(2,)") + bytes(16)}))
    data[6] |= 1  # general purpose flag bit 0: encrypted
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    refusal(bytes(data))
