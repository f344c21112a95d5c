"""One engine for many threads: callers take turns, and whoever waits joins the next caller's turn.

    thread A   run([a])  pass over a ........ returns
    thread B      run([b])  waits ........... pass over b and c ........ returns
    thread C         run([c])  waits ................................... returns, its images are done

Nothing of a caller's own runs during a turn: images are pulled before it and results handed out after it.
"""

import gc
import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from diffood.errors import EngineMemoryError, UsageError
from diffood.runtime.images.pixels import Pixels
from diffood.runtime.sessions import Session

log = logging.getLogger(__name__)

TurnWork = Callable[[Session, Sequence[Pixels]], list[Any]]  # one result per image, in order; equal works share a turn
Reopen = Callable[[int], Session]


@dataclass(eq=False)
class _Call:
    """Images that a thread waits for."""

    work: TurnWork
    images: Sequence[Pixels]
    found: list[Any] | None = None


class SharedSession:
    """A session used by any number of threads, one turn at a time.

    Attributes:
        batch: Images of the session.
    """

    def __init__(self, session: Session, reopen: Reopen | None = None) -> None:
        """Args: the session, and how to load it again with a smaller batch when memory runs out; None: give up."""
        self._session: Session | None = session
        self.batch, self._reopen = session.batch, reopen
        self._turn, self._process = threading.Lock(), os.getpid()
        self._waiting: list[_Call] = []

    @property
    def session(self) -> Session:
        """The session itself, for who knows that no other thread uses it. Raises UsageError as `run` does."""
        self._require_own_process()
        session = self._session
        if session is None:
            with self._turn:  # it may just be loaded again
                session = self._session
        if session is None:
            raise _no_session()
        return session

    def run(self, work: TurnWork, images: Sequence[Pixels]) -> list[Any]:
        """What `work` makes of each image. A turn takes a batch of the waiting calls' images, and this call's all.

        Raises:
            UsageError: It was closed, or opened before a fork in the parent process.
            EngineMemoryError: The engine ran out of memory; even for one row, if it may be loaded again.
        """
        self._require_own_process()
        call = _Call(work, images)
        self._waiting.append(call)
        try:
            with self._turn:
                if call.found is None:
                    self._lead(call)
        finally:
            self._waiting.remove(call)
        assert call.found is not None
        return call.found

    def close(self) -> None:
        """Free the session after the turn under way; later calls are refused."""
        self._require_own_process()
        with self._turn:
            self._session, self._reopen = None, None

    def _lead(self, call: _Call) -> None:
        """Work on a call, together with others that fit into the same batch; alone if that fails."""
        joined, count = [call], len(call.images)
        for other in tuple(self._waiting):
            if other is not call and other.found is None and other.work == call.work and count < self.batch:
                joined.append(other)
                count += len(other.images)
        try:
            found = self._work(call.work, [image for each in joined for image in each.images])
        except Exception:  # may be another call's, which then meets it in a turn of its own
            if len(joined) == 1:
                raise
            joined, found = [call], self._work(call.work, call.images)
        for each in joined:
            each.found, found = found[: len(each.images)], found[len(each.images) :]

    def _work(self, work: TurnWork, images: Sequence[Pixels]) -> list[Any]:
        while True:
            session = self._session
            if session is None:
                raise _no_session()
            try:
                return work(session, images)
            except EngineMemoryError as error:
                failure = str(error)  # not the error itself: its frames keep the session alive
            if self._reopen is None or self.batch == 1:
                raise EngineMemoryError(failure)
            self._session = session = None
            gc.collect()  # frees its memory first
            self._session = self._reopen(self.batch // 2)
            log.warning("Out of memory at batch %d; continuing with batch %d.", self.batch, self._session.batch)
            self.batch = self._session.batch

    def _require_own_process(self) -> None:
        if os.getpid() != self._process:
            raise UsageError(
                f"This detector was opened in process {self._process} and is used in process {os.getpid()}, its fork: "
                "an engine does not survive a fork; call Detector.open in each process, after it has started."
            )


def _no_session() -> UsageError:
    return UsageError(
        "This detector was closed, or its engine could not be loaded again after it ran out of memory; open the bundle "
        "again with Detector.open."
    )
