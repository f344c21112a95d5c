"""Decoding ahead: order, pauses, and processes that crash, hang or run out of memory and take one item with them."""

import gc
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty_items import Faulty, FaultyOnce
from killed_starts import kill_at_start

from diffood.errors import DiffoodError
from diffood.runtime import child as child_module
from diffood.runtime.images.decode import DEFAULT_LIMITS, DecodedImage, ImageLimits, ImageShape
from diffood.runtime.inputs.decoding import GROUP, IN_THREADS, DecodeOptions, decode_ahead, default_processes
from diffood.runtime.inputs.items import PAUSE, Item, Pause
from diffood.runtime.inputs.remote import RemoteFile
from diffood.runtime.inputs.urls import DEFAULT_URLS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals, limits on memory and /proc as Linux has them")

SHAPE = ImageShape(1, 4, 4)
PROCESSES = DecodeOptions(processes=2, seconds=30)


def decode(items: list[Item], decoding: DecodeOptions, limits: ImageLimits = DEFAULT_LIMITS) -> dict[str, DecodedImage]:
    pairs = [pair for pair in decode_ahead(items, SHAPE, limits, 8, decoding) if not isinstance(pair, Pause)]
    assert [item.id for item, _ in pairs] == [item.id for item in items]
    return {item.id: loaded for item, loaded in pairs}


def names(pair: tuple[Item, DecodedImage] | Pause) -> str | Pause:
    return pair if isinstance(pair, Pause) else pair[0].id


def children() -> set[int]:
    """Processes that this one started and that are not gone."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        found |= {int(pid) for pid in (task / "children").read_text().split()}
    return found


@pytest.fixture(autouse=True)
def faults_are_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoding process can load no module once it is up, that of the faults neither."""
    monkeypatch.setattr(child_module, "START", child_module.START.replace("from", "import faulty_items; from", 1))


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    before = children()
    yield
    gc.collect()
    assert children() <= before


def test_every_item_comes_in_its_place(subtests: pytest.Subtests) -> None:
    for decoding, count in itertools.product((IN_THREADS, PROCESSES), (0, 1, GROUP, 5 * GROUP + 3)):
        with subtests.test(processes=decoding.processes, count=count):
            items: list[Item] = [Faulty(f"{index}", grey=index) for index in range(count)]
            found = decode(items, decoding)
            maxima = [loaded.pixels.max() for loaded in found.values() if loaded.pixels is not None]
            assert maxima == list(range(count))
            assert all(len(loaded.sha256) == 64 and loaded.error == "" for loaded in found.values())


def test_processes_and_threads_say_the_same() -> None:
    items: list[Item] = [Faulty(f"{index}", grey=index) for index in range(20)]
    limits = ImageLimits(max_bytes=10)
    for given in (DEFAULT_LIMITS, limits):
        one, other = decode(items, IN_THREADS, given), decode(items, PROCESSES, given)
        for name in one:
            assert (one[name].sha256, one[name].note, one[name].error) == (
                other[name].sha256,
                other[name].note,
                other[name].error,
            )
            assert str(one[name].pixels) == str(other[name].pixels)


def test_urls_are_fetched_for_processes_that_can_open_nothing(tmp_path: Path) -> None:
    (tmp_path / "good.png").write_bytes(Faulty("a").read(DEFAULT_LIMITS))
    (tmp_path / "empty.png").touch()
    urls = [f"file://{tmp_path}/{name}.png" for name in ("good", "missing", "empty", *["good"] * GROUP)]
    items: list[Item] = [RemoteFile(f"{number}", url, DEFAULT_URLS) for number, url in enumerate(urls)]
    both = [decode(items, decoding) for decoding in (IN_THREADS, PROCESSES)]
    for name, one in both[0].items():
        other = both[1][name]
        assert (one.sha256, one.note, one.error, str(one.pixels)) == (
            *(other.sha256, other.note, other.error),
            str(other.pixels),
        )
    assert [bool(loaded.error) for loaded in both[1].values()] == [False, True, True, *[False] * GROUP]


FAULTS = {
    "signal 11": "ended the process that decoded it, twice (crashed with signal 11, SIGSEGV)",
    "signal 9": "twice (killed with signal 9, probably out of memory)",
    "exit": "twice (stopped with exit code 7)",
    "answer": "twice (its answer is invalid)",
    "endless answer": "twice (it broke its pipe)",
    "memory": "could not be read (MemoryError)",
    "error": "could not be read (KeyError",
    "sleep": "was not decoded in 1 s, twice",
    "stop": "was not decoded in 1 s, twice",
}


PLACES = [*((fault, (3,)) for fault in FAULTS), *(("exit", where) for where in [(0,), (GROUP - 1, GROUP), (2, 3, 4)])]


def test_a_fault_takes_one_item_with_it(monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests) -> None:
    monkeypatch.setattr(child_module, "END_SECONDS", 0.5)
    for fault, places in PLACES:
        with subtests.test(fault=fault, places=places):
            items: list[Item] = [Faulty(f"{index}", fault if index in places else "") for index in range(2 * GROUP)]
            for index, loaded in enumerate(decode(items, DecodeOptions(processes=1, seconds=1)).values()):
                assert (loaded.pixels is None) == (index in places)
                assert (FAULTS[fault] in loaded.error) if index in places else (loaded.error == "")


def test_a_fault_that_passes_costs_no_image(subtests: pytest.Subtests) -> None:
    for fault in ("exit", "signal 9", "stop"):
        with subtests.test(fault=fault):
            once = FaultyOnce("b", fault)
            items: list[Item] = [Faulty("a"), once, Faulty("c")]
            assert [loaded.error for loaded in decode(items, DecodeOptions(2, seconds=2)).values()] == ["", "", ""]
            assert once.sent == ["b", "b"]


def test_a_process_that_is_killed_while_it_starts_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_at_start(tmp_path, monkeypatch, times=3)
    items: list[Item] = [Faulty(f"{index}") for index in range(3 * GROUP)]
    assert {loaded.error for loaded in decode(items, PROCESSES).values()} == {""}
    assert {path.name for path in tmp_path.iterdir()} >= {"0", "1", "2"}


def test_a_pause_brings_out_all_before_it(subtests: pytest.Subtests) -> None:
    for decoding in (IN_THREADS, PROCESSES):
        with subtests.test(processes=decoding.processes):
            pulled = 0

            def slow() -> Iterator[Item | Pause]:
                nonlocal pulled
                for index in range(3):
                    yield Faulty(f"{index}")
                yield PAUSE
                pulled += 1
                yield Faulty("3")

            stream = decode_ahead(slow(), SHAPE, DEFAULT_LIMITS, 100, decoding)
            firsts = [names(pair) for pair in itertools.islice(stream, 4)]
            assert (firsts, pulled) == (["0", "1", "2", PAUSE], 0)
            assert [names(pair) for pair in stream] == ["3"]


def test_endless_items_are_read_a_window_ahead() -> None:
    pulled = 0

    def endless() -> Iterator[Item]:
        nonlocal pulled
        for index in range(10**9):
            pulled += 1
            yield Faulty(str(index))

    stream = decode_ahead(endless(), SHAPE, DEFAULT_LIMITS, 8, PROCESSES)
    assert [names(pair) for pair in itertools.islice(stream, 50)] == [str(index) for index in range(50)]
    assert pulled <= 50 + 2 * 2 * GROUP + 2 * GROUP
    began = time.monotonic()
    stream.close()
    assert time.monotonic() - began < 20  # it does not wait for what nobody asks for any more


def test_a_closed_stream_waits_for_no_hanging_item() -> None:
    items = [Faulty(f"{index}", "sleep" if index >= GROUP else "") for index in range(20 * GROUP)]
    stream = decode_ahead(items, SHAPE, DEFAULT_LIMITS, 8, DecodeOptions(processes=2, seconds=3600))
    assert names(next(stream)) == "0"
    ended = threading.Event()
    closing = threading.Timer(60, lambda: ended.is_set() or os.kill(os.getpid(), signal.SIGABRT))  # else it hangs
    closing.start()
    stream.close()
    ended.set()
    closing.cancel()


def test_a_process_that_cannot_start_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "START_WAITS", (0.01, 0.01))
    monkeypatch.setattr(child_module, "START", "raise SystemExit({path!r} and {module!r} and 3)")
    with pytest.raises(DiffoodError, match=r"did not start \(stopped with exit code 3\).*--decoders 0"):
        decode([Faulty("a")], PROCESSES)


def test_processes_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    program = """
import sys, itertools
from faulty_items import Faulty
from diffood.runtime import child
from diffood.runtime.images.decode import DEFAULT_LIMITS, ImageShape
from diffood.runtime.inputs.decoding import DecodeOptions, decode_ahead
child.START = child.START.replace("from", "import faulty_items; from", 1)
faulty = (Faulty(str(i)) for i in itertools.count())
stream = decode_ahead(faulty, ImageShape(1, 4, 4), DEFAULT_LIMITS, 8, DecodeOptions(2))
next(stream)
print("up", flush=True)
sys.stdin.read()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    inner = {
        int(pid)
        for task in Path(f"/proc/{process.pid}/task").iterdir()
        for pid in (task / "children").read_text().split()
    }
    assert len(inner) == 2
    process.kill()
    process.communicate()
    for _ in range(100):
        if not any(Path(f"/proc/{pid}/stat").exists() and is_alive(pid) for pid in inner):
            return
        time.sleep(0.1)
    pytest.fail("decoding processes outlive their parent")


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_processes_import_no_engine(tmp_path: Path) -> None:
    program = """
import sys
import diffood.runtime.inputs.decode_worker
heavy = {"onnxruntime", "pyarrow", "pydantic", "typer", "rich", "scipy", "matplotlib", "fsspec", "torch"}
assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_the_default_leaves_a_core_to_the_engine() -> None:
    assert 1 <= default_processes() <= 4
