"""Rows from many machines, in the order of the files: blocks of files go to workers on a Ray cluster and come back.

What happens in which order:

    start     one worker per slot; each opens the bundle and answers with its fingerprint, which must equal the first's
    assign    the next block goes to the least busy worker; its first block comes with a probe of one file's hash
    collect   rows of a block arrive in any order, and are given once all blocks before it were given
    loss      a worker that ends loses its blocks to the front of the queue; a block that costs ATTEMPTS workers, or an
              error that would repeat anywhere, ends the run
    sweep     every SWEEP seconds: machines that joined get workers

Plain actors, not Ray Data's map_batches: Ray Data reads its source before it begins (`from_items` needs a sequence, a
datasource the list of its read tasks), while here files are listed as they are scored, and a billion are never held in
memory. The rest, order and a bounded number of blocks under way, is the loop in `Cluster.rows`.
"""

import contextlib
import heapq
import itertools
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from diffood.errors import BundleError, CalibrationError, DiffoodError, MissingExtraError, UsageError
from diffood.runtime.bundle.bundle import Bundle
from diffood.runtime.bundle.calibration import Calibration, Fingerprint
from diffood.runtime.inputs.items import Item, Pause
from diffood.runtime.sessions.choice import describe_engine
from diffood.serving.cluster.blocks import Block, in_blocks
from diffood.serving.cluster.connection import count_slots, one_line
from diffood.serving.cluster.worker import FileProbe, ReadyWorker, Worker, WorkerConfig
from diffood.serving.local import ScoredFile

AHEAD = 2  # blocks per worker: the one it scores and the next
WINDOW = 3  # blocks per worker that are under way or wait for an earlier one; bounds the memory
ATTEMPTS = 5  # at one block, and at opening a worker
SWEEP = 3.0  # seconds between looks at which machines there are
PATIENCE = 600.0  # seconds without a single worker after which a run ends

# Errors about what a machine was given, which would occur again on the next try.
LASTING_ERRORS = (UsageError, BundleError, CalibrationError, MissingExtraError)

_RESUME = "see `ray status`, and continue from the rows that exist with --resume"


@dataclass
class _Member:
    """A worker as the driver knows it.

    Attributes:
        handle: Ray's actor.
        ready: Once it has opened the bundle.
        probed: Whether it was given a FileProbe.
        blocks: Assigned to it, in order; it scores the first.
    """

    handle: Any
    ready: ReadyWorker | None = None
    probed: bool = False
    blocks: deque[Block] = field(default_factory=deque)


class Cluster:
    """Workers on a Ray cluster, a Scorer; see `open_cluster`. Not for use by two threads at once."""

    def __init__(self, ray: Any, bundle: Bundle, calibration: Calibration, config: WorkerConfig, gpu: bool) -> None:
        self._ray, self.bundle, self.calibration, self._config, self._gpu = ray, bundle, calibration, config, gpu
        self._members: list[_Member] = []
        self._pending: dict[Any, tuple[_Member, Block | None]] = {}  # by Ray's reference; None: it opens the bundle
        self._lost: list[tuple[int, Block]] = []  # a heap: blocks to score again, the earliest first
        self._numbers = itertools.count()
        self._first: ReadyWorker | None = None
        self._failed_openings = 0
        self._swept = float("-inf")
        self._last_served = time.monotonic()  # when there was last a worker

    @property
    def threads(self) -> int:
        """Threads of each worker's engine; 0 on a GPU."""
        return 0 if self._gpu else self._config.threads

    @property
    def batch(self) -> int:
        """Images that each worker's engine works on at once."""
        return self._config.batch

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
        """Everything that the workers' scores depend on; equal for all of them."""
        return self._first_ready.fingerprint

    @property
    def engine(self) -> str:
        """One line that says what the workers run, and why."""
        return describe_engine(self.precision, self.backend, self._first_ready.why)

    @property
    def workers(self) -> list[tuple[str, int]]:
        """(machine, process id) of each worker that is ready now."""
        return [(member.ready.node, member.ready.process) for member in self._members if member.ready]

    @property
    def _first_ready(self) -> ReadyWorker:
        while self._first is None:
            self._step()
        return self._first

    def rows(self, items: Iterable[Item | Pause]) -> Iterator[ScoredFile]:
        """One row per item, in order and each once, even if workers are lost. Draws items as they are needed.

        At a pause all rows before it are given first.

        Raises:
            DiffoodError: A block was lost ATTEMPTS times, or there was no worker for PATIENCE seconds.
        """
        blocks, window = in_blocks(items), deque[Block]()
        more, paused = True, False
        while more or window:
            paused = paused and bool(window)
            if more and not paused and self._has_room(len(window)):
                drawn = next(blocks, None)
                more, paused = drawn is not None, drawn == []
                if drawn:
                    window.append(Block(next(self._numbers), drawn))
                    self._assign(window[-1])
            else:
                self._step()
            while window and window[0].rows is not None:
                done = window.popleft()
                for item, (row, picture) in zip(done.items, done.rows or (), strict=True):
                    yield ScoredFile(row, item, picture)

    def close(self) -> None:
        """End all workers, whatever they do."""
        for member in self._members:
            self._end(member)
        self._members.clear()
        self._pending.clear()

    def _has_room(self, under_way: int) -> bool:
        return not self._lost and bool(self._free()) and under_way < WINDOW * len(self.workers)

    def _free(self) -> list[_Member]:
        """Workers that can take a block, the least busy first."""
        free = [member for member in self._members if member.ready and len(member.blocks) < AHEAD]
        return sorted(free, key=lambda member: len(member.blocks))

    def _assign(self, block: Block) -> None:
        member = self._free()[0]
        probe = None if member.probed else self._probe(block.items[0])
        member.probed = True
        member.blocks.append(block)
        self._pending[member.handle.score.remote(block.items, probe)] = (member, block)

    def _probe(self, item: Item) -> FileProbe | None:
        loaded = item.load(self.bundle.manifest.image, self._config.limits)
        return FileProbe(item, loaded.sha256) if loaded.sha256 else None

    def _step(self) -> None:
        """Wait until something happens, at most SWEEP seconds, and act on it. Raises DiffoodError if Ray is gone."""
        try:
            self._start_workers()
            if references := list(self._pending):
                for reference in self._ray.wait(references, timeout=SWEEP)[0]:
                    self._collect(reference)
            else:
                time.sleep(SWEEP)
            while self._lost and self._free():
                self._assign(heapq.heappop(self._lost)[1])
        except (self._ray.exceptions.RayError, ConnectionError) as error:
            raise DiffoodError(f"The Ray cluster does not answer ({one_line(error)}); {_RESUME}.") from None
        if self.workers:
            self._last_served = time.monotonic()
        elif time.monotonic() - self._last_served > PATIENCE:
            raise DiffoodError(f"No machine of the cluster provided a worker for {PATIENCE:g} s; {_RESUME}.")

    def _start_workers(self) -> None:
        """As many as the machines there are now can hold; Ray starts each as soon as there is room."""
        if time.monotonic() - self._swept < SWEEP:
            return
        self._swept = time.monotonic()
        needs = {"num_gpus": 1, "num_cpus": 1} if self._gpu else {"num_cpus": self._config.threads}
        # Ray would restart a worker silently; instead `_drop` counts the loss and assigns its blocks again.
        actor = self._ray.remote(Worker).options(
            **needs, max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD"
        )
        for _ in range(count_slots(self._ray.nodes(), self._gpu, self._config.threads) - len(self._members)):
            member = _Member(actor.remote(self._config))
            self._members.append(member)
            self._pending[member.handle.open.remote()] = (member, None)

    def _collect(self, reference: Any) -> None:
        member, block = self._pending.pop(reference)
        try:
            answer = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            self._drop(member, error)
            return
        if block is None:
            self._accept(member, answer)
        else:
            block.rows = answer
            member.blocks.remove(block)

    def _accept(self, member: _Member, ready: ReadyWorker) -> None:
        self._first = self._first or ready
        if difference := self._first.fingerprint.difference(ready.fingerprint):
            raise CalibrationError(
                f"{ready.node} would give other scores than {self._first.node} ({difference}); install the same engine "
                "on every machine, or choose a --backend and --precision that all have."
            )
        member.ready, self._failed_openings = ready, 0

    def _drop(self, member: _Member, error: Any) -> None:
        """Remove a worker that was lost and queue its blocks; an error that another try would repeat ends the run."""
        cause = getattr(error, "cause", None)
        if isinstance(cause, LASTING_ERRORS):
            raise cause from None
        self._members.remove(member)
        self._end(member)
        self._pending = {key: value for key, value in self._pending.items() if value[0] is not member}
        reason = one_line(cause or error)
        if member.ready is None:
            self._failed_openings += 1
            if self._failed_openings >= ATTEMPTS and not self.workers:
                raise DiffoodError(f"{ATTEMPTS} workers in a row ended while they opened the bundle, last: {reason}.")
        elif member.blocks:
            block = member.blocks[0]
            block.attempts += 1
            if block.attempts >= ATTEMPTS:
                raise DiffoodError(
                    f"{ATTEMPTS} workers ended while they scored {block.items[0].id!r} to {block.items[-1].id!r}, "
                    f"last: {reason}. Run `diffood serve-batch` on these files alone to find the one that ends them, "
                    "or leave them out."
                )
        for block in member.blocks:
            heapq.heappush(self._lost, (block.number, block))

    def _end(self, member: _Member) -> None:
        with contextlib.suppress(Exception):  # Ray raises several kinds for an actor or a cluster that is gone
            self._ray.kill(member.handle)
