"""An engine that finds no memory goes on with fewer rows a call, and loses no image; a real limit, in a process."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from diffood import zoo
from diffood.calibration.calibrate import calibrate
from diffood.calibration.scored_files import score_sources
from diffood.errors import EngineMemoryError
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.bundle.calibration import save_calibration
from diffood.runtime.detector import Detector
from diffood.runtime.inputs.open import list_inputs
from diffood.runtime.method.plan import DEFAULT
from diffood.runtime.sparing import stream_sparing
from diffood.zoo.images import unpack_set

ROWS = 64  # of a call, for which the engine takes some 100 megabytes
PLAN = {"start_times": (120,), "stride": 120, "repeats": 1, "guidance": 0.0, "witnesses": ("jump",), "stages": ()}

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


def test_a_run_goes_on_with_fewer_rows_where_memory_does_not_suffice(tmp_path: Path, clothes_folder: Path) -> None:
    bundle = Path(shutil.copytree(zoo.BUNDLE, tmp_path / "bundle"))
    fresh = Detector.load(open_bundle(bundle), DEFAULT.changed(PLAN), batch=8, threads=1)
    files = score_sources(fresh, list_inputs([str(clothes_folder)]))
    save_calibration(fresh.bundle, calibrate(fresh, files, 0.05, 0.95, "pac"))
    unpack_set("fashion-test", tmp_path / "images", 100)
    words = ("serve-batch", bundle, tmp_path / "images", "--batch", ROWS, "--threads", 1, "--output")
    summaries, rows = [], []
    for limit in (2 * 2**30, 50 * 2**20):
        output = tmp_path / f"{limit}.jsonl"
        command = [sys.executable, "-c", LIMITED, *map(str, (limit, *words, output, "--json"))]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        summaries.append(json.loads(done.stdout))
        rows.append([json.loads(line) for line in output.read_text().splitlines()])
    enough, little = summaries
    assert enough["lanes"] == ROWS
    assert little["lanes"] in {32, 16, 8, 4}
    assert f"Out of memory at batch {ROWS}; continuing with batch " in done.stderr
    assert [row["id"] for row in rows[1]] == [row["id"] for row in rows[0]]
    assert [row["score"] for row in rows[1]] == pytest.approx([row["score"] for row in rows[0]], abs=1e-5)


@pytest.mark.parametrize("failing", [(), (0,), (1, 2), (5, 5, 11), (12,), (0, 0, 0, 0)])
def test_what_fails_is_begun_again_from_the_first_item_without_a_result(failing: tuple[int, ...]) -> None:
    left, halved = list(failing), 0

    def stream(items: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
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

    def halve() -> bool:
        nonlocal halved
        halved += 1
        return halved <= 3

    items = [(index, str(index)) for index in range(13)]
    if len(failing) > 3:
        with pytest.raises(EngineMemoryError, match="none"):
            list(stream_sparing(stream, halve, items))
    else:
        assert list(stream_sparing(stream, halve, items)) == items
        assert halved == len(failing)
