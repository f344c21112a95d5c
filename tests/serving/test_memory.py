"""An engine out of memory continues with fewer rows per call, and loses no image; a real limit, in a process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cheap_calibration import calibrate_cheaply

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
