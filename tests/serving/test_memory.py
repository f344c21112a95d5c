"""An engine out of memory continues with fewer rows per call, and loses no image; a real limit, in a process."""

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from cheap_calibration import calibrate_cheaply

from diffood.errors import EngineMemoryError
from diffood.runtime.halving import stream_halving
from diffood.zoo.images import unpack_set

ROWS = 1024  # per call, for which the engine needs some 100 megabytes

# The command line in a process in which ONNX Runtime's arena, shared by all sessions, has so many bytes at most.
LIMITED = """
import sys
import onnxruntime
from diffood import cli

arena = onnxruntime.OrtArenaCfg({"max_mem": int(sys.argv.pop(1)), "arena_extend_strategy": 1})
place = onnxruntime.OrtMemoryInfo(
    "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
)
onnxruntime.create_and_register_allocator(place, arena)
made = onnxruntime.SessionOptions
def options():
    settings = made()
    settings.add_session_config_entry("session.use_env_allocators", "1")
    return settings
onnxruntime.SessionOptions = options
cli.main()
"""


def test_a_run_continues_with_fewer_rows_when_the_engine_runs_out_of_memory(
    small_bundle_copy: Path, clothes_folder: Path, tmp_path: Path
) -> None:
    calibrate_cheaply(small_bundle_copy, clothes_folder)
    unpack_set("fashion-test", tmp_path / "images", 100)
    words = ("serve-batch", small_bundle_copy, tmp_path / "images", "--batch", ROWS, "--threads", 1, "--output")
    summaries, rows = [], []
    for limit in (2 * 2**30, 30 * 2**20):
        output = tmp_path / f"{limit}.jsonl"
        command = [sys.executable, "-c", LIMITED, *map(str, (limit, *words, output, "--json"))]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        summaries.append(json.loads(done.stdout))
        rows.append([json.loads(line) for line in output.read_text().splitlines()])
    enough, little = summaries
    assert enough["lanes"] == ROWS
    assert little["lanes"] in {ROWS // 2, ROWS // 4, ROWS // 8, ROWS // 16}
    assert f"Out of memory at batch {ROWS}; continuing with batch " in done.stderr
    assert [row["id"] for row in rows[1]] == [row["id"] for row in rows[0]]
    assert [row["score"] for row in rows[1]] == pytest.approx([row["score"] for row in rows[0]], abs=1e-5)


def test_what_fails_is_begun_again_from_the_first_item_without_a_result() -> None:
    for failing in ((), (0,), (1, 2), (5, 5, 11), (12,), (0, 0, 0, 0)):
        left, halved = list(failing), [0]

        def stream(items: Iterable[tuple[int, str]], left: list[int] = left) -> Iterator[tuple[int, str]]:
            """Looks three items ahead, as lanes do, and fails on its way at the items named."""
            ahead: list[tuple[int, str]] = []
            for key, given in items:
                ahead.append((key, given))
                if left and left[0] <= key:
                    left.pop(0)
                    raise EngineMemoryError("none")
                if len(ahead) == 3:
                    yield ahead.pop(0)
            yield from ahead

        def halve(halved: list[int] = halved) -> bool:
            halved[0] += 1
            return halved[0] <= 3

        items = [(index, str(index)) for index in range(13)]
        if len(failing) > 3:
            with pytest.raises(EngineMemoryError, match="none"):
                list(stream_halving(stream, halve, items))
        else:
            assert list(stream_halving(stream, halve, items)) == items, failing
            assert halved == [len(failing)], failing
