"""How files are cut into blocks, and how many workers the machines of a cluster hold."""

from pathlib import Path
from typing import Any

import pytest

from diffood.runtime.inputs.items import PAUSE, InlineItem, LocalFile
from diffood.serving.cluster import blocks
from diffood.serving.cluster.blocks import in_blocks
from diffood.serving.cluster.connection import count_slots


def machine(cpus: float, gpus: float = 0, alive: bool = True) -> dict[str, Any]:
    """As `ray.nodes()` describes one."""
    return {"Alive": alive, "Resources": {"CPU": cpus} | ({"GPU": gpus} if gpus else {})}


def test_a_worker_takes_a_gpu_or_the_cpus_of_its_threads() -> None:
    cases: list[tuple[list[dict[str, Any]], bool, int, int]] = [
        ([], False, 1, 0),
        ([machine(8)], False, 3, 2),
        ([machine(8), machine(2)], False, 3, 2),
        ([machine(8), machine(8, alive=False)], False, 1, 8),
        ([machine(8, 4), machine(8)], True, 1, 4),
        ([machine(2, 4)], True, 1, 2),
        ([{"Alive": True, "Resources": {}}], False, 1, 0),
    ]
    for nodes, gpu, threads, slots in cases:
        assert count_slots(nodes, gpu, threads) == slots, (nodes, gpu, threads)


def test_blocks_end_at_their_count_their_weight_and_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 3)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 100)
    light = [LocalFile(str(index), Path(str(index))) for index in range(8)]
    heavy = InlineItem("heavy", "shard.tar#1", bytes(101))
    items = [*light[:4], PAUSE, light[4], heavy, *light[5:]]
    assert list(in_blocks(items)) == [light[:3], light[3:4], [], [light[4], heavy], light[5:]]
