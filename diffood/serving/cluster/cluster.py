"""Rows from many machines, in the order of the files: blocks of files go to workers on a Ray cluster and come back.

Plain actors, not Ray Data's map_batches. Ray Data draws its source before it begins: `from_items` wants a sequence, a
datasource the list of its read tasks; here files are listed while they are scored, and a billion are never held. What
would be left of it, the order and a bounded number of blocks under way, is the one loop below, which also counts the
workers that a block has cost, names it, and asks every machine whether it has the same bundle and sees the same files.
"""

import contextlib
import heapq
import itertools
import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffood.errors import BundleError, CalibrationError, DiffoodError, MissingExtraError, UsageError
from diffood.runtime.bundle.bundle import Bundle, open_bundle
from diffood.runtime.bundle.calibration import Fingerprint, load_calibration
from diffood.runtime.detector import DEFAULT_BATCH
from diffood.runtime.images.decode import DEFAULT_LIMITS, Limits
from diffood.runtime.inputs.decode_worker import load_item
from diffood.runtime.inputs.decoding import IN_THREADS, Decoding
from diffood.runtime.inputs.items import Item, Pause
from diffood.runtime.sessions.choice import BackendChoice, PrecisionChoice
from diffood.serving.batch import Scored
from diffood.serving.cluster.worker import Opened, Sight, Work, Worker, identify
from diffood.serving.rows.row import Row

BLOCK = 256  # files; what is done again when a worker is lost
BLOCK_BYTES = 8 * 2**20  # of images that came with their listing, after which a block is closed before it is full
DECODERS_A_WORKER = 1  # processes; a damaged image then ends one of them and not the worker
AHEAD = 2  # blocks a worker has: the one it scores and the next
WINDOW = 3  # blocks a worker under way or waiting for an earlier one to be done: memory is bounded by this
ATTEMPTS = 5  # at one block, and at opening a worker
SWEEP = 3.0  # seconds between looks at which machines there are
PATIENCE = 600.0  # seconds without a single worker after which a run ends
SECONDS_TO_ANSWER = 10.0  # of a machine where a cluster is said to be

LOCAL = "ray"
OBJECT_STORE_BYTES = 128 * 2**20  # of a Ray started here: names and rows pass through it, no images

# What is wrong with what a machine was given, and would be wrong again on the next try.
REFUSALS = (UsageError, BundleError, CalibrationError, MissingExtraError)


@dataclass
class _Block:
    """Files that are scored together; rows, each with its picture, once done. attempts: at it that were lost."""

    number: int
    sources: list[Item]
    rows: list[tuple[Row, bytes | None]] | None = None
    attempts: int = 0


@dataclass
class _Member:
    """A worker as the driver knows it. blocks: given to it, in order; it is working on the first."""

    handle: Any
    opened: Opened | None = None
    seen: bool = False
    blocks: deque[_Block] = field(default_factory=deque)


class Cluster:
    """Workers on a Ray cluster, a Scorer; see `open_cluster`. Not for use by two threads at once."""

    def __init__(self, ray: Any, bundle: Bundle, work: Work, gpu: bool) -> None:
        self._ray, self.bundle, self._work, self._gpu = ray, bundle, work, gpu
        self._members: list[_Member] = []
        self._pending: dict[Any, tuple[_Member, _Block | None]] = {}  # by Ray's reference; no block: it opens
        self._todo: list[tuple[int, _Block]] = []  # a heap: blocks that were lost, the earliest first
        self._numbers = itertools.count()
        self._first: Opened | None = None
        self._failed_openings = 0
        self._swept = float("-inf")
        self._served = time.monotonic()  # when there was last a worker

    @property
    def threads(self) -> int:
        """Threads of each worker's engine, as Session.threads."""
        return 0 if self._gpu else self._work.threads

    @property
    def lanes(self) -> int:
        """Rows of every call of each worker's engine."""
        return self._work.batch

    @property
    def precision(self) -> str:
        """Of the engines."""
        return self.fingerprint.precision

    @property
    def backend(self) -> str:
        """Of the engines."""
        return self.fingerprint.backend

    @property
    def fingerprint(self) -> Fingerprint:
        """All that the scores of the workers depend on; the same for each."""
        return self._opened.fingerprint

    @property
    def engine(self) -> str:
        """One line that says what the workers run, and why."""
        opened = self._opened
        return f"{self.precision} on {self.backend}{f': {opened.why}' if opened.why else ''}"

    @property
    def workers(self) -> list[tuple[str, int]]:
        """(machine, process id) of each worker that is ready now."""
        return [(member.opened.node, member.opened.process) for member in self._members if member.opened]

    @property
    def _opened(self) -> Opened:
        while self._first is None:
            self._step()
        return self._first

    def rows(self, sources: Iterable[Item | Pause]) -> Iterator[Scored]:
        """A row a source, in order and each once, whatever becomes of workers. Draws sources as they are needed.

        Where the sources pause, all rows before the pause are given first.
        Raises DiffoodError where a block was lost ATTEMPTS times, or no worker was left for PATIENCE seconds.
        """
        blocks, window = _in_blocks(sources), deque[_Block]()
        more, paused = True, False
        while more or window:
            paused = paused and bool(window)
            if more and not paused and self._has_room(len(window)):
                drawn = next(blocks, None)
                more, paused = drawn is not None, drawn == []
                if drawn:
                    window.append(_Block(next(self._numbers), drawn))
                    self._give(window[-1])
            else:
                self._step()
            while window and window[0].rows is not None:
                done = window.popleft()
                for item, (row, picture) in zip(done.sources, done.rows or (), strict=True):
                    yield Scored(row, item, picture)

    def close(self) -> None:
        """End all workers, whatever they are at."""
        for member in self._members:
            self._end(member)
        self._members.clear()
        self._pending.clear()

    def _has_room(self, under_way: int) -> bool:
        return not self._todo and bool(self._free()) and under_way < WINDOW * len(self.workers)

    def _free(self) -> list[_Member]:
        """Workers that can be given a block, the least busy first."""
        ready = [member for member in self._members if member.opened and len(member.blocks) < AHEAD]
        return sorted(ready, key=lambda member: len(member.blocks))

    def _give(self, block: _Block) -> None:
        member = self._free()[0]
        sight = None if member.seen else self._see(block.sources[0])
        member.seen = True
        member.blocks.append(block)
        self._pending[member.handle.score.remote(block.sources, sight)] = (member, block)

    def _see(self, source: Item) -> Sight | None:
        loaded = load_item(source, self.bundle.manifest.image, self._work.limits)
        return Sight(source, loaded.sha256) if loaded.sha256 else None

    def _step(self) -> None:
        """Wait until something happens, at most SWEEP seconds, and act on it. Raises DiffoodError where Ray is gone."""
        try:
            self._hire()
            if references := list(self._pending):
                for reference in self._ray.wait(references, timeout=SWEEP)[0]:
                    self._collect(reference)
            else:
                time.sleep(SWEEP)
            while self._todo and self._free():
                self._give(heapq.heappop(self._todo)[1])
        except (self._ray.exceptions.RayError, ConnectionError) as error:
            raise DiffoodError(f"The Ray cluster does not answer ({_reason(error)}); {_GO_ON}.") from None
        if self.workers:
            self._served = time.monotonic()
        elif time.monotonic() - self._served > PATIENCE:
            raise DiffoodError(f"No machine of the cluster gave a worker for {PATIENCE:g} s; {_GO_ON}.")

    def _hire(self) -> None:
        """As many workers as the machines there are now can hold; Ray starts each where there is room."""
        if time.monotonic() - self._swept < SWEEP:
            return
        self._swept = time.monotonic()
        needs = {"num_gpus": 1, "num_cpus": 1} if self._gpu else {"num_cpus": self._work.threads}
        # Ray restarts no worker, as it would not say so: what was lost is given anew, and counted, in `_lose`.
        hired = self._ray.remote(Worker).options(
            **needs, max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD"
        )
        for _ in range(count_slots(self._ray.nodes(), self._gpu, self._work.threads) - len(self._members)):
            member = _Member(hired.remote(self._work))
            self._members.append(member)
            self._pending[member.handle.open.remote()] = (member, None)

    def _collect(self, reference: Any) -> None:
        member, block = self._pending.pop(reference)
        try:
            answer = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            self._lose(member, error)
            return
        if block is None:
            self._admit(member, answer)
        else:
            block.rows = answer
            member.blocks.remove(block)

    def _admit(self, member: _Member, opened: Opened) -> None:
        self._first = self._first or opened
        if difference := self._first.fingerprint.difference(opened.fingerprint):
            raise CalibrationError(
                f"{opened.node} would score otherwise than {self._first.node} ({difference}); give every machine the "
                "same engine, or choose a --backend and --precision that all have."
            )
        member.opened, self._failed_openings = opened, 0

    def _lose(self, member: _Member, error: Any) -> None:
        """Take a worker out and its blocks back; an error that a next try would not mend ends the run."""
        cause = getattr(error, "cause", None)
        if isinstance(cause, REFUSALS):
            raise cause from None
        self._members.remove(member)
        self._end(member)
        self._pending = {key: value for key, value in self._pending.items() if value[0] is not member}
        reason = _reason(cause or error)
        if member.opened is None:
            self._failed_openings += 1
            if self._failed_openings >= ATTEMPTS and not self.workers:
                raise DiffoodError(f"{ATTEMPTS} workers in a row ended while they opened the bundle, last: {reason}.")
        elif member.blocks:
            block = member.blocks[0]
            block.attempts += 1
            if block.attempts >= ATTEMPTS:
                raise DiffoodError(
                    f"{ATTEMPTS} workers ended at the block from {block.sources[0].id!r} to {block.sources[-1].id!r}, "
                    f"last: {reason}. Leave out what ends them, or run `diffood serve-batch` on these files alone to "
                    "find it."
                )
        for block in member.blocks:
            heapq.heappush(self._todo, (block.number, block))

    def _end(self, member: _Member) -> None:
        with contextlib.suppress(Exception):  # Ray raises several kinds for an actor or a cluster that is gone
            self._ray.kill(member.handle)


_GO_ON = "see `ray status`, and go on from the rows there are with --resume"


@contextlib.contextmanager
def open_cluster(
    path: Path,
    address: str,
    *,
    backend: BackendChoice = "auto",
    precision: PrecisionChoice | None = None,
    batch: int = DEFAULT_BATCH,
    threads: int = 0,
    limits: Limits = DEFAULT_LIMITS,
    decoding: Decoding = IN_THREADS,
    pictures: bool = False,
) -> Iterator[Cluster]:
    """Workers for a calibrated bundle, which lies at the same path on every machine; ended on leaving.

    address: "ray" for a Ray of this machine that ends with the run; else a running one: "auto", HOST:PORT or
    ray://HOST:PORT. backend "auto": the one the bundle was calibrated on. threads 0: the CPUs of the smallest machine.

    Raises MissingExtraError (no Ray), UsageError (no cluster there, none of its machines fits), BundleError and
    CalibrationError as `Detector.open` does, here or on any machine.
    """
    try:
        import ray
    except ImportError:
        raise MissingExtraError("--cluster needs Ray: pip install 'diffood[ray]', on every machine.") from None
    path = path.absolute()
    identity, bundle = identify(path), open_bundle(path)
    chosen = load_calibration(bundle).fingerprint.backend if backend == "auto" else backend
    gpu = chosen != "onnxruntime-cpu"
    with _connection(ray, address):
        nodes = ray.nodes()
        threads = threads or min(filter(None, map(_cpus, nodes)), default=1)
        if not count_slots(nodes, gpu, threads):
            wanted = f"a GPU, which {chosen} needs" if gpu else f"{threads} CPUs for the {threads} --threads asked for"
            raise UsageError(f"No machine of the cluster has {wanted}; see `ray status`.")
        work = Work(path, identity, Path.cwd(), chosen, precision, batch, threads, limits, decoding, pictures)
        cluster = Cluster(ray, bundle, work, gpu)
        try:
            yield cluster
        finally:
            cluster.close()


@contextlib.contextmanager
def _connection(ray: Any, address: str) -> Iterator[None]:
    """Connected to Ray, by the caller's own connection where there is one."""
    if ray.is_initialized():
        yield
        return
    mine = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES} if address == LOCAL else {}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # what is scored here is nobody else's business
    with _keeping_signals():
        try:
            _require_listener(address)
            ray.init("local" if address == LOCAL else address, log_to_driver=False, logging_level="ERROR", **mine)
        except Exception as error:  # Ray raises many kinds
            raise UsageError(
                f"No Ray cluster at {address!r} ({_reason(error)}); start one with `ray start --head`, set "
                f"RAY_AUTH_MODE=token where it asks for a token, or give --cluster {LOCAL} for one of this machine."
            ) from None
    try:
        yield
    finally:
        ray.shutdown()


def _require_listener(address: str) -> None:
    """Raise OSError where nothing listens: Ray would go on trying for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_ANSWER).close()


@contextlib.contextmanager
def _keeping_signals() -> Iterator[None]:
    """Ray takes SIGTERM for itself and dies of it with a dump; what was to happen goes on to be what happens."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if before is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


def count_slots(nodes: Iterable[dict[str, Any]], gpu: bool, threads: int) -> int:
    """How many workers fit on the machines that `ray.nodes()` tells of: one a GPU, or one for every `threads` CPUs."""
    return sum(min(_gpus(node), _cpus(node)) if gpu else _cpus(node) // threads for node in nodes)


def _cpus(node: dict[str, Any]) -> int:
    return int(node["Resources"].get("CPU", 0)) if node["Alive"] else 0


def _gpus(node: dict[str, Any]) -> int:
    return int(node["Resources"].get("GPU", 0)) if node["Alive"] else 0


def _in_blocks(sources: Iterable[Item | Pause]) -> Iterator[list[Item]]:
    """Blocks of BLOCK sources, fewer where they are heavy and before a pause, for which an empty block stands."""
    held: list[Item] = []
    weight = 0
    for source in sources:
        if not isinstance(source, Pause):
            held.append(source)
            weight += source.held
        if held and (isinstance(source, Pause) or len(held) == BLOCK or weight > BLOCK_BYTES):
            yield held
            held, weight = [], 0
        if isinstance(source, Pause):
            yield []
    if held:
        yield held


def _reason(error: BaseException) -> str:
    """What happened in one line: Ray explains itself on many, with traces of its own."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".")[:200]
