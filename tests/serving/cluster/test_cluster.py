"""serve-batch on a cluster: the rows of one machine, whatever becomes of the others. Real Ray, real kills."""

import os
import shutil
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from diffood import zoo
from diffood.calibration.calibrate import calibrate
from diffood.calibration.scored_files import score_sources
from diffood.errors import BundleError, CalibrationError, DiffoodError, UsageError
from diffood.runtime.bundle.bundle import open_bundle
from diffood.runtime.bundle.calibration import load_calibration, save_calibration
from diffood.runtime.detector import Detector
from diffood.runtime.images.decode import DEFAULT_LIMITS
from diffood.runtime.inputs.decoding import IN_THREADS
from diffood.runtime.inputs.items import PAUSE, Inline, Pause, Source
from diffood.runtime.inputs.open import list_inputs
from diffood.runtime.method.plan import Plan
from diffood.serving.cluster import blocks, cluster
from diffood.serving.cluster.blocks import in_blocks
from diffood.serving.cluster.cluster import Cluster
from diffood.serving.cluster.connection import count_slots
from diffood.serving.cluster.open import open_cluster
from diffood.serving.cluster.worker import FileProbe, Worker, WorkerConfig, identify
from diffood.serving.local import LocalScorer, ScoredFile
from diffood.serving.request import ScorerRequest
from diffood.serving.rows.row import Row
from diffood.zoo.images import unpack_set

CHEAPEST = Plan(start_times=(120,), stride=120, repeats=1, guidance=0.0)
BATCH, THREADS = 8, 1
BLOCK = 8  # files: many blocks of few images
STORE_BYTES = 80 * 2**20  # Ray's least is 75 MB
LONG_ENOUGH = 30.0  # seconds for a process to end


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, clothes_folder: Path) -> Path:
    """A copy of the shipped bundle, calibrated on eighty images with the cheapest plan; read-only."""
    path = Path(shutil.copytree(zoo.BUNDLE, tmp_path_factory.mktemp("cluster") / "bundle"))
    fresh = Detector.load(open_bundle(path), CHEAPEST, batch=BATCH, threads=THREADS)
    files = score_sources(fresh, list_inputs([str(clothes_folder)]))
    save_calibration(fresh.bundle, calibrate(fresh, files, 0.05, 0.95, "pac"))
    return path


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Source]:
    """Two hundred clothes and digits, two broken files among them."""
    folder = tmp_path_factory.mktemp("mixed")
    unpack_set("fashion-test", folder / "clothes", 120)
    unpack_set("digits", folder / "digits", 80)
    (folder / "clothes" / "broken.png").write_text("This is no image.\n")
    (folder / "digits" / "missing.png").symlink_to(folder / "nowhere.png")
    return list_inputs([str(folder)])


@pytest.fixture(scope="module")
def local_rows(bundle: Path, sources: list[Source]) -> list[Row]:
    """What one machine says of the sources."""
    detector = Detector.open(bundle, batch=BATCH, threads=THREADS)
    return rows_of(LocalScorer(detector, detector.calibration()).rows(sources))


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


def test_an_interruption_ends_the_workers(machines: Any, bundle: Path, sources: list[Source]) -> None:
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
        save_calibration(open_bundle(path), calibration.model_copy(update={"guarantee": "another"}))
        with pytest.raises(BundleError, match=r"calibration.json differs from the one the run was started with"):
            _ = opened.fingerprint


def test_two_workers_give_the_rows_of_one_machine_in_order(
    workers: Cluster, sources: list[Source], local_rows: list[Row]
) -> None:
    await_workers(workers, 2)
    assert rows_of(workers.rows(sources)) == local_rows
    assert [row.status for row in local_rows].count("rejected") == 2
    assert workers.fingerprint.backend == "onnxruntime-cpu"


def rows_of(scored: Iterable[ScoredFile]) -> list[Row]:
    return [one.row for one in scored]


def begin_with_two(workers: Cluster, sources: list[Source]) -> tuple[Iterator[Row], list[Row], cluster._Member]:
    """Rows under way on two workers, the first of them, and the worker with the most to lose."""
    await_workers(workers, 2)
    rows = (scored.row for scored in workers.rows(sources))
    begun = [next(rows)]
    victim = max(workers._members, key=lambda member: len(member.blocks))
    assert victim.blocks
    return rows, begun, victim


def test_a_killed_worker_costs_no_row(workers: Cluster, sources: list[Source], local_rows: list[Row]) -> None:
    rows, begun, victim = begin_with_two(workers, sources)
    assert victim.ready
    os.kill(victim.ready.process, signal.SIGKILL)
    assert begun + list(rows) == local_rows
    assert victim not in workers._members


def test_a_lost_machine_costs_no_row(
    machines: Any, workers: Cluster, sources: list[Source], local_rows: list[Row]
) -> None:
    rows, begun, victim = begin_with_two(workers, sources)
    assert victim.ready
    lost = machine_of(victim.ready.process, machines)
    machines.remove_node(lost, allow_graceful=False)
    try:
        assert begun + list(rows) == local_rows
        assert victim not in workers._members
    finally:
        machines.add_node(num_cpus=1, object_store_memory=STORE_BYTES)


def test_few_sources_are_drawn_ahead_of_the_rows(workers: Cluster, sources: list[Source]) -> None:
    await_workers(workers, 2)
    drawn = 0

    def endless() -> Iterator[Source]:
        nonlocal drawn
        while True:
            yield sources[drawn % len(sources)]
            drawn += 1

    rows = workers.rows(endless())
    for taken in range(100):
        next(rows)
        assert drawn <= taken + (cluster.WINDOW * 2 + 1) * BLOCK


def test_rows_before_a_pause_are_given_before_the_next_source_is_waited_for(
    workers: Cluster, sources: list[Source], local_rows: list[Row]
) -> None:
    given: list[Row] = []

    def paused() -> Iterator[Source | Pause]:
        yield from sources[:11]
        yield PAUSE
        assert given == local_rows[:11]
        yield PAUSE
        yield from sources[11:20]

    for scored in workers.rows(paused()):
        given.append(scored.row)
    assert given == local_rows[:20]


def test_a_block_that_ends_its_workers_is_named(
    workers: Cluster, sources: list[Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "ATTEMPTS", 1)
    await_workers(workers, 1)

    def deadly() -> Iterator[Source | Pause]:
        yield from sources[:11]
        yield PAUSE
        for _, process in workers.workers:  # before the next block is given, so that one is lost for certain
            os.kill(process, signal.SIGKILL)
        yield from sources[11:]

    with pytest.raises(DiffoodError, match=r"1 workers ended while they scored 'clothes/.*' to '.*'"):
        list(workers.rows(deadly()))


@pytest.mark.parametrize("threads", [2, 64])
def test_more_threads_than_a_machine_has_are_refused(machines: Any, bundle: Path, threads: int) -> None:
    with (
        pytest.raises(UsageError, match=f"No machine of the cluster has {threads} CPUs"),
        open_cluster("auto", ScorerRequest(bundle, threads=threads)),
    ):
        pass


def test_a_gpu_backend_needs_a_machine_with_a_gpu(machines: Any, bundle: Path) -> None:
    with (
        pytest.raises(UsageError, match="No machine of the cluster has a GPU, which tensorrt needs"),
        open_cluster("auto", ScorerRequest(bundle, backend="tensorrt")),
    ):
        pass


def machine(cpus: float, gpus: float = 0, alive: bool = True) -> dict[str, Any]:
    """As `ray.nodes()` tells of one."""
    return {"Alive": alive, "Resources": {"CPU": cpus} | ({"GPU": gpus} if gpus else {})}


@pytest.mark.parametrize(
    ("nodes", "gpu", "threads", "slots"),
    [
        ([], False, 1, 0),
        ([machine(8)], False, 3, 2),
        ([machine(8), machine(2)], False, 3, 2),
        ([machine(8), machine(8, alive=False)], False, 1, 8),
        ([machine(8, 4), machine(8)], True, 1, 4),
        ([machine(2, 4)], True, 1, 2),
        ([{"Alive": True, "Resources": {}}], False, 1, 0),
    ],
)
def test_a_worker_takes_a_gpu_or_the_cpus_of_its_threads(
    nodes: list[dict[str, Any]], gpu: bool, threads: int, slots: int
) -> None:
    assert count_slots(nodes, gpu, threads) == slots


def test_blocks_end_at_their_count_their_weight_and_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 3)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 100)
    light = [Source(str(index), Path(str(index))) for index in range(8)]
    heavy = Inline("heavy", "shard.tar#1", bytes(101))
    items = [*light[:4], PAUSE, light[4], heavy, *light[5:]]
    assert list(in_blocks(items)) == [light[:3], light[3:4], [], [light[4], heavy], light[5:]]


@pytest.fixture
def work(bundle: Path) -> WorkerConfig:
    """What a worker on this machine is given."""
    identity = identify(bundle)
    return WorkerConfig(
        bundle, identity, Path.cwd(), "onnxruntime-cpu", None, BATCH, THREADS, DEFAULT_LIMITS, IN_THREADS, False
    )


@pytest.mark.parametrize(
    ("field", "value", "error", "words"),
    [
        ("diffood", "0.0.1", UsageError, "started with 0.0.1; install one version"),
        ("manifest_sha256", "0" * 64, BundleError, "manifest.json differs"),
        ("calibration_sha256", "0" * 64, BundleError, "calibration.json differs"),
    ],
)
def test_a_worker_opens_the_bundle_of_the_run_only(
    work: WorkerConfig, field: str, value: str, error: type[DiffoodError], words: str
) -> None:
    changed = replace(work, identity=replace(work.identity, **{field: value}))
    with pytest.raises(error, match=words):
        Worker(changed).open()


def test_a_worker_refuses_what_its_calibration_does_not_hold_for(
    work: WorkerConfig, tmp_path: Path, bundle: Path
) -> None:
    path = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    calibration = load_calibration(open_bundle(path))
    other = calibration.fingerprint.model_copy(update={"step_sha256": "0" * 64})
    save_calibration(open_bundle(path), calibration.model_copy(update={"fingerprint": other}))
    with pytest.raises(CalibrationError, match="step_sha256"):
        Worker(replace(work, bundle=path, identity=identify(path))).open()


def test_a_worker_gives_the_pictures_that_this_machine_gives(
    work: WorkerConfig, bundle: Path, sources: list[Source]
) -> None:
    detector = Detector.open(bundle, batch=BATCH, threads=THREADS)
    here = [
        (scored.row, scored.picture)
        for scored in LocalScorer(detector, detector.calibration(), pictures=True).rows(sources[-40:])
    ]
    worker = Worker(replace(work, pictures=True))
    worker.open()
    assert worker.score(sources[-40:], None) == here
    assert [picture is not None for _, picture in here] == [bool(row.is_ood) for row, _ in here]
    assert {picture is None for _, picture in here} == {True, False}


def test_a_machine_that_sees_other_files_is_refused(
    work: WorkerConfig, sources: list[Source], local_rows: list[Row]
) -> None:
    worker = Worker(work)
    worker.open()
    found = worker.score(sources[:9], FileProbe(sources[0], local_rows[0].sha256))
    assert [row for row, _ in found] == local_rows[:9]
    with pytest.raises(UsageError, match="differs from the file where the run was started"):
        worker.score(sources[:9], FileProbe(sources[1], local_rows[0].sha256))
    gone = Source("gone.png", Path("/nowhere/gone.png"))
    with pytest.raises(UsageError, match="mount the inputs at the same path"):
        worker.score(sources[:9], FileProbe(gone, local_rows[0].sha256))
