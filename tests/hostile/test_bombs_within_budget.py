"""Attack: files that ask for all memory and time. Each is refused within 2 GiB beyond its own size and 30 s.

Real commands, each in a process of its own, whose peak of memory and time of computing are measured. Cheap siblings are
in the tests of each reader and in tests/runtime/test_budget.py.
"""

import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from attacks import undone
from hostile_graphs import write_hostile
from sealed import edit_record
from small_models import CLASSIFIER, FACTORY, SCHEDULER, UNET

from diffood.errors import EXIT_FAILED, EXIT_WRONG_USAGE
from diffood.runtime.onnx.builder import Value

Reseal = Callable[[str, bytes], None]
Arguments = list[object]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of memory need Linux"),
]

SECONDS = 30  # of computing: a busy machine takes longer
MIB = 2048  # beyond what the files have
PROTOCOL = b"\x80\x02"


# In between, since a process begins with the peak of the one that started it: the tests' own may be gigabytes.
WATCHER = """
import os, subprocess, sys
run = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(run.pid, 0)
print(os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
"""


def measure(arguments: Arguments) -> tuple[int, float, float, str]:
    """Exit code, seconds of computing, MiB of memory at most, and what the command said on standard error."""
    command = [sys.executable, "-m", "diffood", *map(str, arguments)]
    watched = subprocess.run([sys.executable, "-S", "-c", WATCHER, *command], capture_output=True, check=True)
    code, seconds, kibibytes = watched.stdout.split()
    return int(code), float(seconds), int(kibibytes) / 1024, watched.stderr.decode()


def require_refused(arguments: Arguments, size: int) -> None:
    """Have a command fail with one line, within the budget beyond `size` bytes of files."""
    code, seconds, memory, said = measure(arguments)
    assert code in (EXIT_FAILED, EXIT_WRONG_USAGE), said
    assert said.splitlines()[-1].startswith("error: ") and "Traceback" not in said
    assert seconds < SECONDS and memory - size / 2**20 < MIB, f"{seconds} s, {memory} MiB, {said}"


def grown(value: Value, times: int) -> Value:
    """A value of twice the size, so many times."""
    for _ in range(times):
        value = value.builder.concat([value, value])
    return value


def with_constants(x: Value) -> Value:
    return x + grown(x.builder.constant(np.ones(2**16, np.float32)), 16).reduce("ReduceMax", 0)


def with_images(x: Value) -> Value:
    return x + grown(x.reshape(-1), 24).reduce("ReduceMax", 0)


def with_a_computed_shape(x: Value) -> Value:
    side = x.builder.integers([2**17])
    shape = x.builder.node("Mul", side, side)
    return x + x.builder.node("ConstantOfShape", shape).reduce("ReduceMax", 0)


def with_products(x: Value) -> Value:
    value = x.builder.constant(np.eye(3000, dtype=np.float32))
    for _ in range(1000):
        value = value @ value
    return x + value.reduce("ReduceMax", 0, 1)


def test_graphs_are_refused_within_the_budget(
    victim: Path, reseal: Reseal, clothes_folder: Path, subtests: pytest.Subtests
) -> None:
    for image in (with_constants, with_images, with_a_computed_shape, with_products):
        with subtests.test(image.__name__), undone(victim):
            model = write_hostile((victim / "classify.onnx").read_bytes(), image)
            reseal("classify.onnx", model)
            require_refused(["calibrate", victim, "--images", clothes_folder, "--fpr", 0.2], len(model))


def test_records_are_refused_within_the_budget(victim: Path, clothes_folder: Path, subtests: pytest.Subtests) -> None:
    for name, data in {
        "calibration.json": b'{"scores":[' + b"0," * 60_000_000 + b"0]}",
        "parity.json": b"[" + b"[]," * 1_300_000 + b"0]",
        "tuning.json": b"[" + b"{}," * 25_000_000 + b"0]",
        "manifest.json": b"[" * 4_000_000,
    }.items():
        with subtests.test(name), undone(victim):
            (victim / name).write_bytes(data)
            verb = ["calibrate", "--images", clothes_folder, "--fpr", 0.2] if name == "tuning.json" else ["inspect"]
            require_refused([*verb, victim], len(data))


def test_arrays_and_sizes_are_refused_within_the_budget(
    victim: Path, reseal: Reseal, subtests: pytest.Subtests
) -> None:
    entry = b"PK\1\2".ljust(47, b"\0")
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 2**16 - 1, 2**16 - 1, 2_000_000 * len(entry), 0, 0)
    with subtests.test("a directory of two million entries"), undone(victim):
        reseal("noise_levels.npz", entry * 2_000_000 + end)
        require_refused(["inspect", victim], 2_000_000 * len(entry))
    with subtests.test("twelve sparse files of a gigabyte"), undone(victim):
        names = [f"x{index}.bin" for index in range(12)]
        with (victim / names[0]).open("wb") as file:
            file.truncate(2**30)
        for name in names[1:]:
            os.link(victim / names[0], victim / name)
        claim = {"sha256": "0" * 64, "size": 2**30}
        edit_record(victim / "manifest.json", lambda fields: fields["files"].update(dict.fromkeys(names, claim)))
        require_refused(["inspect", victim], 2**30)


def pickled(names: bytes) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("model/data.pkl", names)
    return data.getvalue()


def protobuf(number: int, data: bytes) -> bytes:
    """A field of a message."""
    size, count = b"", len(data)
    while count > 127:
        size, count = size + bytes([count & 127 | 128]), count >> 7
    return bytes([number << 3 | 2]) + size + bytes([count]) + data


def test_weights_are_refused_within_the_budget(tmp_path: Path, subtests: pytest.Subtests) -> None:
    pytest.importorskip("torch")
    entries = b",".join(b'"t%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % at for at in range(1_000_000))
    header = b"{" + entries + b"}"
    before = b"".join(pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    weights = {
        "a million tensors.safetensors": struct.pack("<Q", len(header)) + header,
        "empty lists.pt": pickled(PROTOCOL + b"]" * 60_000_000 + b"."),
        "twelve megabytes of empty lists.pt": pickled(PROTOCOL + b"]" * 12_000_000 + b"."),
        "an array of gigabytes.pt": pickled(PROTOCOL + b"cbuiltins\nbytearray\n\x8a\x05\0\0\0\0\x04\x85R."),
        "old empty lists.pt": before + PROTOCOL + b"]" * 100_000_000 + b".",
    }
    for name, data in weights.items():
        with subtests.test(name):
            (tmp_path / name).write_bytes(data)
            require_refused(
                [
                    *EXPORT,
                    f"{CLASSIFIER}:{FACTORY}",
                    "--classifier-weights",
                    tmp_path / name,
                    "--output",
                    tmp_path / "b",
                ],
                len(data),
            )
    graphs = {
        "empty nodes": protobuf(7, b"\x0a\0" * 100_000_000),
        "empty texts in a weight": protobuf(7, protobuf(5, b"\x32\0" * 100_000_000)),
        "dimensions": protobuf(7, protobuf(13, protobuf(2, protobuf(1, protobuf(2, b"\x0a\0" * 60_000_000))))),
    }
    for name, data in graphs.items():
        with subtests.test(name):
            (tmp_path / "net.onnx").write_bytes(data)
            require_refused([*EXPORT, f"onnx:{tmp_path / 'net.onnx'}", "--output", tmp_path / "b"], len(data))


EXPORT: Arguments = ["export", "--unet", UNET, "--scheduler", SCHEDULER, "--classifier"]


def test_links_to_a_sparse_gigabyte_are_refused_within_the_budget(
    victim: Path, clothes_folder: Path, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    assert measure(["calibrate", victim, "--images", clothes_folder, "--fpr", 0.2])[0] == 0
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(2**30)
    for ending in (".png", ".tar", ".zip", ".parquet"):
        folder = tmp_path / f"links{ending}"
        folder.mkdir()
        for index in range(12):
            (folder / f"{index}{ending}").symlink_to(tmp_path / "sparse")
        with subtests.test(ending):
            rows = tmp_path / f"rows{ending}.jsonl"
            _, seconds, memory, said = measure(["serve-batch", victim, folder, "--output", rows, "--decoders", 1])
            assert seconds < SECONDS and memory < MIB + 1024 and "Traceback" not in said
