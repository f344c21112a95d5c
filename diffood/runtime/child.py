"""Child processes for work on hostile bytes: they may crash, hang or run out of memory, and the run continues.

Frames of bytes go both ways over a socket, which is the child's standard input. What a child sends is not trusted: it
is never unpickled, and frames have a largest size. It gets no secret of the environment, and what sandbox.py takes.
"""

import contextlib
import ctypes
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

from diffood.runtime.json_reader import parse_object
from diffood.runtime.sandbox import confine_process

# A child imports what this process does, and never from the folder it happens to start in, as `python -m` would.
START = (
    "import sys; sys.path[:] = {path!r}; from diffood.runtime.child import end_with_parent; end_with_parent({parent}); "
    "from {module} import main; main(*sys.argv[1:])"
)
PR_SET_PDEATHSIG = 1  # linux/prctl.h
KILLED = -9  # SIGKILL, which Windows does not have; the kernel sends it where memory runs out
INVALID = "its answer is invalid"  # hostile bytes may have taken the child over
READY = b"ready"
START_SECONDS = 120.0  # a busy SD card; the imports take 0.2 s on a PC
START_WAITS = (0.1, 0.3, 1.0, 3.0, 10.0)  # seconds before each new try: a full memory or process table passes
END_SECONDS = 5.0  # between a closed pipe and the process's end
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # nothing is multiplied there
NEEDED = (
    *(
        "PYTHONHOME",
        "PYTHONPATH",
        "PYTHONUTF8",
        "LD_LIBRARY_PATH",
        "DYLD_LIBRARY_PATH",
        "SYSTEMROOT",
    ),  # to start Python at all
    *("LANG", "LC_ALL", "LC_CTYPE"),  # the encoding of the paths it imports from
    *("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"),  # where numpy's choice is wrong for a processor
)
ORPHAN_FACTOR = 3  # times the limit for an item, after which a child without a parent ends
EXPENDABLE = 500  # of 1000: the kernel, short of memory, takes a child before the run that can replace it


def child_command(module: str, *arguments: str) -> list[str]:
    """The command that runs `module.main(*arguments)` in a process of its own."""
    return [sys.executable, "-c", START.format(path=sys.path, module=module, parent=os.getpid()), *arguments]


def bare_environment() -> dict[str, str]:
    """The variables that a process needs to start, and none that may be a secret."""
    return {name: os.environ[name] for name in NEEDED if name in os.environ}


def describe_exit(code: int) -> str:
    """How a process ended, as a clause; `code` as subprocess gives it, negative for a signal."""
    if code == KILLED:
        return "killed with signal 9, probably out of memory"
    if code < 0:
        return f"crashed with signal {-code}{f', {signal.Signals(-code).name}' if -code in set(signal.Signals) else ''}"
    return f"stopped with exit code {code}"


class ChildEnded(Exception):  # noqa: N818 - what happened, for the caller to judge
    """The child ended, or sent what it never should; the message is a clause that says how."""


class ChildSilent(Exception):  # noqa: N818
    """The child did not answer in time."""


class ChildNotStarted(Exception):  # noqa: N818
    """The child could not be started, or ended before it was up; the message is a clause that says how."""


class Child:
    """A running `module.main(*arguments)`. It does not get the terminal's Ctrl-C: its owner ends it.

    Its environment is `bare_environment()`, or what is given. Raises ChildNotStarted where the system has no room for
    a process.
    """

    def __init__(self, module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        try:
            ours, theirs = socket.socketpair()
            with ours, theirs:
                self._process = subprocess.Popen(
                    child_command(module, *arguments),
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    start_new_session=True,
                    env={**(bare_environment() if environment is None else environment), **ONE_THREAD},
                )
                self._pipe = Connection(ours.detach())
        except OSError as error:  # too many processes or open files, no memory
            raise ChildNotStarted(error.strerror or str(error)) from None

    def wait_until_up(self) -> None:
        """Wait until it takes frames. Raises ChildNotStarted, and has ended it then."""
        try:
            if self.receive(len(READY), START_SECONDS) == READY:
                return
            reason = INVALID
        except (ChildEnded, ChildSilent) as end:
            reason = str(end) or "no answer"
        self.kill()
        raise ChildNotStarted(reason)

    def send(self, frame: bytes) -> None:
        """Send a frame to a child that is up. Raises ChildEnded."""
        try:
            self._pipe.send_bytes(frame)
        except OSError:
            raise ChildEnded(self._end()) from None

    def receive(self, most: int, seconds: float | None = None) -> bytes:
        """The next frame, of at most `most` bytes. Raises ChildEnded, and ChildSilent after `seconds` of waiting."""
        try:
            if not self._pipe.poll(seconds):
                raise ChildSilent
            return self._pipe.recv_bytes(most)
        except (EOFError, OSError):  # OSError: a broken socket, or a frame that is larger than it may be
            raise ChildEnded(self._end()) from None

    def receive_fields(self, most: int, seconds: float | None = None) -> dict[str, Any]:
        """The next frame as a JSON object. Raises as `receive` does, and ChildEnded for another frame."""
        return parse_fields(self.receive(most, seconds))

    def kill(self) -> None:
        """End the process, whatever it does; the pipe is closed by its end. May be called from any thread."""
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # it waits for a disk that does not answer
            self._process.wait(END_SECONDS)

    def _end(self) -> str:
        try:
            code = self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            return "it broke its pipe"
        return describe_exit(code)


def start_patiently(start: Callable[[], Child], wait: Callable[[float], object] = time.sleep) -> Child:
    """What `start` gives, which is called again after growing waits where it raises ChildNotStarted."""
    for seconds in START_WAITS:
        try:
            return start()
        except ChildNotStarted:
            wait(seconds)
    return start()


def parse_fields(frame: bytes) -> dict[str, Any]:
    """A JSON object that a child sent. Raises ChildEnded for anything else."""
    try:
        return parse_object(frame)
    except ValueError:
        raise ChildEnded(INVALID) from None


def serve_parent(megabytes: int, *, confined: bool = True) -> Connection:
    """In the child, once all is imported: its end of the pipe, with limits on what it may do from now on.

    Args:
        megabytes: MiB of memory that it may take beyond what is in use now.
        confined: Whether it may open nothing, neither files nor connections; see sandbox.py.
    """
    # First, since where it was closed its number is free. libtiff writes to it, and Pillow has no switch for that.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    pipe = Connection(os.dup(0))
    _limit_memory(megabytes * 2**20)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:  # noqa: PTH123
        file.write(str(EXPENDABLE))
    if confined:
        confine_process()
    pipe.send_bytes(READY)
    return pipe


def end_with_parent(parent: int) -> None:
    """Let Linux end this process as soon as the thread that started it ends, however that does.

    Args:
        parent: The number of the process that started it, which may have ended by now.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, *map(ctypes.c_ulong, (signal.SIGKILL, 0, 0, 0)))
        if os.getppid() != parent:
            os._exit(0)


def answer_items(pipe: Connection, seconds: float, answer: Callable[[Any], tuple[dict[str, str], bytes]]) -> None:
    """In the child: answer groups of pickled items until the parent closes the pipe or is gone.

    Args:
        pipe: From `serve_parent`.
        seconds: Limit for one item, by which the parent goes; where it is gone, SIGALRM ends this process later.
        answer: What goes back for an item, as a line of JSON and the bytes after it.
    """
    while True:
        try:
            items = pickle.loads(pipe.recv_bytes())  # of the process that started this one
        except EOFError:
            return
        for item in items:
            signal.setitimer(signal.ITIMER_REAL, ORPHAN_FACTOR * seconds)
            header, data = answer(item)
            signal.setitimer(signal.ITIMER_REAL, 0)
            pipe.send_bytes(json.dumps(header).encode() + b"\n" + data)


def _limit_memory(more: int) -> None:
    try:
        import resource
    except ImportError:  # no POSIX system
        return
    with contextlib.suppress(OSError, ValueError), open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
        pages = int(file.read().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more,) * 2)
