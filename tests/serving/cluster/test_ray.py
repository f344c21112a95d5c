"""serve-batch on a cluster: the rows of one machine, whatever happens to the others. Real Ray, real kills."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from diffood.errors import BundleError, DiffoodError, UsageError
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.bundle.calibration import load_calibration, save_calibration
from diffood.runtime.inputs.items import PAUSE, Item, Pause
from diffood.serving.cluster import blocks, cluster
from diffood.serving.cluster.cluster import Cluster
from diffood.serving.cluster.open import open_cluster
from diffood.serving.request import ScorerRequest
from diffood.serving.rows.row import Row

pytestmark = pytest.mark.slow  # Ray and its workers take seconds to start

BATCH, THREADS = 8, 1
BLOCK = 8  # files: many blocks of few images
STORE_BYTES = 80 * 2**20  # Ray's least is 75 MB
LONG_ENOUGH = 30.0  # seconds for a process to end


@pytest.fixture(scope="module")
def machines() -> Iterator[Any]:
    """A cluster of this process: a head that scores nothing and two simulated machines of one CPU each."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'diffood[ray]'")
    import ray
    from ray.cluster_utils import Cluster as Machines

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    head = {"num_cpus": 0, "object_store_memory": STORE_BYTES, "include_dashboard": False}
    made = Machines(initialize_head=True, head_node_args=head)
    try:
        for _ in range(2):
            made.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
        ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


@pytest.fixture(scope="module")
def workers(machines: Any, bundle: Path) -> Iterator[Cluster]:
    """Workers on the two machines, given small blocks; they take all CPUs there are, until the last test."""
    with (
        pytest.MonkeyPatch.context() as patch,
        open_cluster("auto", ScorerRequest(bundle, batch=BATCH, threads=THREADS)) as opened,
    ):
        patch.setattr(blocks, "BLOCK", BLOCK)
        patch.setattr(cluster, "SWEEP", 0.5)
        yield opened


def await_workers(workers: Cluster, count: int) -> None:
    """Let the driver look until so many workers are ready; without files, as it looks when it waits."""
    deadline = time.monotonic() + LONG_ENOUGH
    while len(workers.workers) < count:
        assert time.monotonic() < deadline, f"{len(workers.workers)} of {count} workers"
        workers._step()


def ends(process: int) -> bool:
    deadline = time.monotonic() + LONG_ENOUGH
    while Path(f"/proc/{process}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    return not Path(f"/proc/{process}").exists()


def machine_of(process: int, machines: Any) -> Any:
    """The simulated machine on which a worker runs: Ray's daemon there is its parent."""
    parent = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    [found] = [node for node in machines.worker_nodes if node.all_processes["raylet"][0].process.pid == parent]
    return found


def test_an_interruption_ends_the_workers(machines: Any, bundle: Path, sources: list[Item]) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        open_cluster("auto", ScorerRequest(bundle, batch=BATCH, threads=THREADS)) as opened,
    ):
        await_workers(opened, 2)
        processes = [process for _, process in opened.workers]
        next(opened.rows(sources))
        raise KeyboardInterrupt
    assert all(map(ends, processes))


def test_a_machine_with_another_calibration_is_refused(machines: Any, bundle: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    with open_cluster("auto", ScorerRequest(path, batch=BATCH, threads=THREADS)) as opened:
        calibration = load_calibration(open_bundle(path))
        save_calibration(open_bundle(path), calibration.model_copy(update={"set_aside": 1}))
        with pytest.raises(BundleError, match=r"calibration.json differs from the one the run was started with"):
            _ = opened.fingerprint


def test_two_workers_give_the_rows_of_one_machine_in_order(
    workers: Cluster, sources: list[Item], local_rows: list[Row]
) -> None:
    await_workers(workers, 2)
    assert [scored.row for scored in workers.rows(sources)] == local_rows
    assert [row.status for row in local_rows].count("rejected") == 2
    assert workers.fingerprint.backend == "onnxruntime-cpu"


def begin_with_two(workers: Cluster, sources: list[Item]) -> tuple[Iterator[Row], list[Row], cluster._Member]:
    """Rows under way on two workers, the first of them, and the worker with the most to lose."""
    await_workers(workers, 2)
    rows = (scored.row for scored in workers.rows(sources))
    begun = [next(rows)]
    victim = max(workers._members, key=lambda member: len(member.blocks))
    assert victim.blocks
    return rows, begun, victim


def test_a_killed_worker_costs_no_row(workers: Cluster, sources: list[Item], local_rows: list[Row]) -> None:
    rows, begun, victim = begin_with_two(workers, sources)
    assert victim.ready
    os.kill(victim.ready.process, signal.SIGKILL)
    assert begun + list(rows) == local_rows
    assert victim not in workers._members


def test_a_lost_machine_costs_no_row(
    machines: Any, workers: Cluster, sources: list[Item], local_rows: list[Row]
) -> None:
    rows, begun, victim = begin_with_two(workers, sources)
    assert victim.ready
    lost = machine_of(victim.ready.process, machines)
    machines.remove_node(lost, allow_graceful=False)
    try:
        assert begun + list(rows) == local_rows
        deadline = time.monotonic() + LONG_ENOUGH
        while victim in workers._members:  # it may have answered for all its blocks before it was lost
            assert time.monotonic() < deadline, "a lost machine is never noticed"
            assert [scored.row for scored in workers.rows(sources)] == local_rows
    finally:
        machines.add_node(num_cpus=1, object_store_memory=STORE_BYTES)


def test_few_sources_are_drawn_ahead_of_the_rows(workers: Cluster, sources: list[Item]) -> None:
    await_workers(workers, 2)
    drawn = 0

    def endless() -> Iterator[Item]:
        nonlocal drawn
        while True:
            yield sources[drawn % len(sources)]
            drawn += 1

    rows = workers.rows(endless())
    for taken in range(100):
        next(rows)
        assert drawn <= taken + (cluster.WINDOW * 2 + 1) * BLOCK


def test_rows_before_a_pause_are_given_before_the_next_source_is_waited_for(
    workers: Cluster, sources: list[Item], local_rows: list[Row]
) -> None:
    given: list[Row] = []

    def paused() -> Iterator[Item | Pause]:
        yield from sources[:11]
        yield PAUSE
        assert given == local_rows[:11]
        yield PAUSE
        yield from sources[11:20]

    for scored in workers.rows(paused()):
        given.append(scored.row)
    assert given == local_rows[:20]


def test_a_block_that_ends_its_workers_is_named(
    workers: Cluster, sources: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "ATTEMPTS", 1)
    await_workers(workers, 1)

    def deadly() -> Iterator[Item | Pause]:
        yield from sources[:11]
        yield PAUSE
        for _, process in workers.workers:  # before the next block is given, so that one is lost for certain
            os.kill(process, signal.SIGKILL)
        yield from sources[11:]

    with pytest.raises(DiffoodError, match=r"1 workers ended while they scored 'clothes/.*' to '.*'"):
        list(workers.rows(deadly()))


def test_a_cluster_without_a_machine_that_fits_is_refused(machines: Any, bundle: Path) -> None:
    cases = [
        (ScorerRequest(bundle, threads=2), "No machine of the cluster has 2 CPUs"),
        (ScorerRequest(bundle, threads=64), "No machine of the cluster has 64 CPUs"),
        (ScorerRequest(bundle, backend="tensorrt"), "No machine of the cluster has a GPU, which tensorrt needs"),
    ]
    for request, message in cases:
        with pytest.raises(UsageError, match=message), open_cluster("auto", request):
            pytest.fail("opened")
