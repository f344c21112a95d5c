"""Attack: ten thousand damaged files of every format, through the processes that serve-batch decodes with."""

import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from image_mutations import mutate, seeds, with_right_checksums

from diffood.runtime.images.decode import ImageLimits, ImageShape
from diffood.runtime.inputs.decode_worker import DecodeTask
from diffood.runtime.inputs.decoding import DecodeOptions, decode_ahead
from diffood.runtime.inputs.items import LocalFile, Pause
from diffood.runtime.inputs.open import list_inputs

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc")

FILES = 10_000
SHAPE = ImageShape(3, 9, 9)
LIMITS = ImageLimits(max_bytes=2**16, max_pixels=10**6)
DECODING = DecodeOptions(processes=1, seconds=10)


def mutants(count: int) -> Iterator[tuple[str, bytes]]:
    """(name, bytes): the seeds in turn, each damaged otherwise."""
    for number, (name, data) in zip(range(count), itertools.cycle(seeds().items()), strict=False):
        rng = np.random.default_rng([number, len(data)])
        mutant = mutate(data, rng)
        if "png" in name and number % 3:
            mutant = with_right_checksums(mutant)
        yield f"{number:05d}.{name}", mutant


def peak_address_space(pids: list[int]) -> int:
    """Bytes: the most that any of these processes ever mapped."""
    peaks = [0]
    for pid in pids:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        peaks += [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmPeak:")]
    return max(peaks)


def test_each_of_ten_thousand_has_its_row(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name, data in mutants(FILES):
        folder = tmp_path / name[:2]
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    before = children()
    outcomes = decode_ahead(list_inputs([str(tmp_path)]), SHAPE, LIMITS, 32, DECODING)
    first = next(outcomes)
    started = children() - before
    assert len(started) == 1
    peak, refused, lost, names = 0, 0, 0, []
    for pair in itertools.chain([first], outcomes):
        assert not isinstance(pair, Pause)
        item, loaded = pair
        assert isinstance(item, LocalFile)
        names.append(item.id)
        assert (loaded.pixels is None) == bool(loaded.error)
        assert loaded.error.isprintable()
        refused += bool(loaded.error)
        lost += "took longer" in loaded.error or "ended the process" in loaded.error
        if len(names) == FILES - 100:  # a process that died would be another one, whose peak is not this
            peak = peak_address_space(list(children() & started))
    assert names == sorted(names)
    assert len(names) == FILES
    assert FILES // 4 < refused < FILES
    assert lost == 0  # Pillow refuses all of these by itself; a version that crashes shows here, and the run went on
    assert 0 < peak < DecodeTask(SHAPE, LIMITS, 0).megabytes * 2**20 + 2**30
    assert json.dumps(capfd.readouterr()) == '["", ""]'  # libtiff's own messages too


def children() -> set[int]:
    tasks = Path("/proc/self/task").iterdir()
    return {int(pid) for task in tasks for pid in (task / "children").read_text().split()}
