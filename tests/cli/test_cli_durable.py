"""serve-batch is killed, stopped, starved and resumed: its files are those of an undisturbed run, to the byte."""

import contextlib
import json
import multiprocessing
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cheap_calibration import calibrate_cheaply
from forked import run_forked
from PIL import Image

from diffood.runtime.bundle.bundle import Bundle
from diffood.runtime.sessions.cores import usable_cores
from diffood.zoo.images import unpack_set

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")

MACHINE = ("--batch", "8", "--threads", "1")
PART = ("--part-rows", "32")
# A shell starts background jobs with SIGINT ignored, and children inherit that.
PROGRAM = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from diffood.cli import main; main()"
)
NAMES = ["rows.jsonl", "rows.csv", "rows.parquet", "rows"]
FEW, MANY = 220, 1020

# A server that has imported what a run needs makes each of many processes in a tenth of the time.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["diffood.cli", "diffood.runtime.sessions.onnxruntime", "pyarrow.parquet", "forked"])

Run = Callable[..., Any]  # gives conftest.Done
Undisturbed = Callable[..., dict[str, bytes]]  # of inputs and the name of an output


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, small_bundle: Bundle, clothes_folder: Path) -> Path:
    """A copy of the small bundle, calibrated to flag about half of all images; read-only."""
    path = Path(shutil.copytree(small_bundle.path, tmp_path_factory.mktemp("durable") / "bundle"))
    return calibrate_cheaply(path, clothes_folder, 0.5)


def unpack(root: Path, each: int) -> Path:
    """So many clothes and digits, and twenty files that are no images."""
    unpack_set("fashion-test", root / "clothes", each)
    unpack_set("digits", root / "digits", each)
    for index in range(20):
        (root / "clothes" / f"{index:04d}-broken.png").write_text("no image")
    return root


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FEW files, twenty of them broken; read-only."""
    return unpack(tmp_path_factory.mktemp("few") / "images", 100)


@pytest.fixture(scope="module")
def many_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MANY files, for runs that must not end before they are disturbed; read-only."""
    return unpack(tmp_path_factory.mktemp("many") / "images", 500)


@pytest.fixture(scope="module")
def known() -> dict[tuple[Path, str], dict[str, bytes]]:
    """What `undisturbed` has found already."""
    return {}


@pytest.fixture
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory, bundle: Path, run: Run, known: dict[tuple[Path, str], dict[str, bytes]]
) -> Undisturbed:
    """Files of a run over a folder to an output of a name, with its flagged images if asked for."""

    def find(inputs: Path, name: str, *, flagged: bool = False) -> dict[str, bytes]:
        if (inputs, name) not in known:
            folder = tmp_path_factory.mktemp("undisturbed")
            kept = ("--save-flagged", folder / "kept") if flagged else ()
            done = run("serve-batch", bundle, inputs, "--output", folder / name, *kept, *PART, *MACHINE)
            assert done.code == 3, done
            known[inputs, name] = contents(folder)
        return known[inputs, name]

    return find


def contents(folder: Path) -> dict[str, bytes]:
    """Files below a folder except those with timings, and the journal."""
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if not re.search("journal|summary", name)}


def launch(*words: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", PROGRAM, "serve-batch", *map(str, words)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)


def written(folder: Path) -> int:
    """Bytes a run has written so far."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size if path.is_file() else 0
    return total


def children_of(process: int) -> list[int]:
    """The processes that a process started."""
    lists = Path(f"/proc/{process}/task").glob("*/children")
    return [int(number) for each in lists for number in each.read_text().split()]


def is_running(process: int) -> bool:
    """Whether a process has not ended, whoever is to take note of its end."""
    try:
        return not re.search(r"^State:\s*[ZX]", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize(
    ("kills", "names"), [(5, ["rows.jsonl", "rows"]), pytest.param(50, NAMES, marks=pytest.mark.slow)]
)
def test_kills_lose_and_repeat_nothing(
    bundle: Path, images: Path, tmp_path: Path, run: Run, undisturbed: Undisturbed, kills: int, names: list[str]
) -> None:
    """Each kill comes after so many more bytes on the disk, and a moment: in rows, in parts, in the journal, in pauses.

    A run is killed several times before it ends, and then begun in the next kind of output.
    """
    moments, done, finished = random.Random(7), 0, 0
    while done < kills or finished < len(names):
        name = names[finished % len(names)]
        folder = tmp_path / f"{finished}"
        words = (bundle, images, "--output", folder / name, "--save-flagged", folder / "kept", *PART, *MACHINE)
        here = 0
        while done < kills and here < -(-kills // len(names)):
            process = FORKS.Process(target=run_forked, args=("serve-batch", *map(str, words), "--resume"))
            process.start()
            before, more = written(folder), moments.randrange(1, 40_000)
            wait_for(lambda: process.exitcode is not None or written(folder) > before + more)
            time.sleep(moments.random() * 0.02)
            process.kill()
            process.join()
            if process.exitcode != -signal.SIGKILL:
                break
            done, here = done + 1, here + 1
        assert run("serve-batch", *words, "--resume").code == 3
        assert contents(folder) == undisturbed(images, name, flagged=True), f"after {here} kills of {name}"
        finished += 1
    assert done == kills


@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "rows.jsonl"), (signal.SIGTERM, "rows")])
def test_a_signal_ends_in_good_order_and_says_how_to_resume(
    bundle: Path,
    many_images: Path,
    tmp_path: Path,
    run: Run,
    undisturbed: Undisturbed,
    number: signal.Signals,
    name: str,
) -> None:
    process = launch(bundle, many_images, "--output", tmp_path / name, *PART, *MACHINE, "--json")
    wait_for(lambda: written(tmp_path) > 8000)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert "Traceback" not in err
    summary = json.loads(out)
    assert summary["state"] == "stopped"
    assert 0 < summary["files"] < MANY
    [command] = re.findall(r"^resume with  diffood (serve-batch .* --resume)$", err, re.MULTILINE)
    again = run(*shlex.split(command))
    assert again.code == 3, again
    assert (again.content["resumed"], again.content["files"]) == (summary["files"], MANY)
    assert contents(tmp_path) == undisturbed(many_images, name)


def test_a_second_signal_ends_at_once_and_keeps_the_rows(
    bundle: Path, many_images: Path, tmp_path: Path, run: Run, undisturbed: Undisturbed
) -> None:
    words = (bundle, many_images, "--output", tmp_path / "rows.jsonl")
    process = launch(*words, *PART, *MACHINE, "--decoders", "2")
    wait_for(lambda: written(tmp_path) > 8000)
    children = children_of(process.pid)
    assert len(children) == 2
    process.send_signal(signal.SIGTERM)
    time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    # Ended by the kernel, or by Python: a shell sees the same code.
    assert process.returncode in (128 + signal.SIGTERM, -signal.SIGTERM), err
    assert "Traceback" not in err
    wait_for(lambda: not any(map(is_running, children)))
    assert not any(map(is_running, children))
    assert run("serve-batch", *words, *PART, *MACHINE, "--resume").code == 3
    assert contents(tmp_path) == undisturbed(many_images, "rows.jsonl")


def test_a_resume_with_other_settings_or_inputs_is_refused(
    run: Run, bundle: Path, tmp_path: Path, images: Path, clothes_folder: Path
) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    (tmp_path / "in").mkdir()
    for index in range(120):
        (tmp_path / "in" / f"{index}.png").write_text("no image")
    (tmp_path / "in" / "00.png").hardlink_to(images / "digits" / "0000.png")
    serve = ("serve-batch", copy, tmp_path / "in", "--output", tmp_path / "rows.jsonl")
    stopped = run(*serve, *MACHINE, "--max-reject-rate", 0.5)
    assert stopped.code == 1
    assert "99 of 100 files were refused, more than --max-reject-rate 0.5; the last: " in stopped.err
    run(*serve, *MACHINE).assert_wrong_usage("has 100 rows of a run that did not finish: continue it with")
    run(*serve, *MACHINE, "--resume", "--overwrite").assert_wrong_usage("give one of them")
    resumed = (*serve, "--resume")
    run(*resumed, "--batch", 4, "--threads", 1).assert_wrong_usage("batch: 8 there, 4 here")
    run(*resumed, *MACHINE, "--max-bytes", 100).assert_wrong_usage("max bytes")
    (tmp_path / "in" / "000.png").touch()
    run(*resumed, *MACHINE).assert_wrong_usage("The inputs have changed", "row 3 is of '1.png'", "have '000.png'")
    (tmp_path / "in" / "000.png").unlink()
    other = ("--start-time", "120", "--stride", "120", "--repeats", "1", "--guidance", "0", "--seed", "9")
    assert (
        run("calibrate", copy, "--images", clothes_folder, "--plan", "plain", *other, *MACHINE, "--overwrite").code == 0
    )
    run(*resumed, *MACHINE).assert_wrong_usage("resumed with other settings", "plan.seed", "calibration sha256")
    shutil.copy(bundle / "calibration.json", copy)
    done = run(*resumed, *MACHINE, "--max-reject-rate", 0.5)  # twenty more are too few to judge
    assert done.code == 3
    assert done.out.startswith("121 files: 1 scored, ")


def test_a_finished_run_is_not_run_again_by_resume(run: Run, calibrated: Path, folders: Path, tmp_path: Path) -> None:
    for name in NAMES:
        place = ("--output", tmp_path / name, "--resume")
        words = ("serve-batch", calibrated, folders / "ind", *place, *MACHINE, "--json")
        first = run(*words)
        assert (first.code, first.content["files"]) == (0, 10)
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
        again = run(*words)
        assert (again.code, again.content) == (0, first.content)
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_run_on_all_cores_resumes_with_their_number(
    run: Run, calibrated: Path, folders: Path, tmp_path: Path
) -> None:
    words = ("serve-batch", calibrated, folders / "ind", "--output", tmp_path / "rows.jsonl", "--resume")
    assert run(*words, "--threads", 0).code == 0
    stored = json.loads((tmp_path / "rows.jsonl.summary.json").read_text())
    assert stored["run"]["threads"] == usable_cores()
    assert run(*words, "--threads", usable_cores()).code == 0
    more = usable_cores() + 1
    run(*words, "--threads", more).assert_wrong_usage(f"threads: {usable_cores()} there, {more} here")


def test_the_summary_counts_the_rows(
    run: Run, bundle: Path, images: Path, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    done = run("serve-batch", bundle, images, "--output", tmp_path / "rows.jsonl", *MACHINE, "--json")
    rows = [json.loads(line) for line in undisturbed(images, "rows.jsonl", flagged=True)["rows.jsonl"].splitlines()]
    stored = json.loads((tmp_path / "rows.jsonl.summary.json").read_text())
    assert stored["run"]["batch"] == 8
    for summary in (done.content, stored):
        assert summary["state"] == "finished"
        assert summary["files"] == len(rows) == FEW
        assert summary["scored"] == sum(row["status"] == "ok" for row in rows) == 200
        assert summary["rejected"] == 20
        assert summary["flagged"] == sum(bool(row["is_ood"]) for row in rows) > 20
        assert summary["unet_evaluations"] == sum(row["unet_evaluations"] for row in rows)
        assert sum(summary["reasons"].values()) == 20


def test_flagged_files_are_kept_with_their_denoised_pictures(
    run: Run, bundle: Path, images: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    words = (images / "digits", "--output", tmp_path / "rows.jsonl", "--save-flagged", kept)
    assert run("serve-batch", bundle, *words, *MACHINE).code == 0
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    flagged = {f"{number:07d}-{row['id']}": row for number, row in enumerate(rows) if row["is_ood"]}
    assert len(flagged) > 10
    assert {path.name for path in kept.iterdir()} == flagged.keys() | {f"{name}.denoised.png" for name in flagged}
    for name, row in flagged.items():
        assert (kept / name).read_bytes() == (images / "digits" / row["id"]).read_bytes()
        with Image.open(kept / f"{name}.denoised.png") as picture:
            assert (picture.size, picture.mode) == ((28, 28), "L")
            with Image.open(kept / name) as original:
                assert picture.tobytes() != original.tobytes()


def test_metrics_are_scraped_from_a_run_and_only_from_this_machine(
    bundle: Path, many_images: Path, tmp_path: Path
) -> None:
    words = (bundle, many_images, "--output", tmp_path / "rows.jsonl", *MACHINE, "--metrics-port", 0)
    process = launch(*words, "--log", tmp_path / "log.jsonl")
    assert process.stderr
    try:
        found = re.fullmatch(r"metrics     (http://127\.0\.0\.1:\d+/metrics)\n", process.stderr.readline())
        assert found
        texts = list(scrape(found[1], process))
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 3, err
    assert texts
    counts = [
        {name: float(value) for name, value in (line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")}
        for text in texts
    ]
    files = [sum(value for name, value in each.items() if name.startswith("diffood_files_total")) for each in counts]
    assert files == sorted(files)
    assert files[-1] > 0
    assert counts[-1]["diffood_batch"] == 8
    assert 'diffood_info{version="' in texts[-1]
    assert "# TYPE diffood_files_total counter" in texts[-1]
    events = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert (events[0]["event"], events[-1]["event"]) == ("start", "finished")
    assert sum(event["event"] == "rejected" for event in events) == 20
    assert all(event.keys() >= {"time", "level", "event"} for event in events)


def scrape(url: str, process: "subprocess.Popen[str]") -> Iterator[str]:
    """What the address gives until the run ends."""
    while process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                yield answer.read().decode()
            with pytest.raises(urllib.error.HTTPError):
                urllib.request.urlopen(url + "x", timeout=5)
        except (urllib.error.URLError, ConnectionError):
            return
        time.sleep(0.05)


def test_files_that_cannot_be_written_are_explained(run: Run, calibrated: Path, folders: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    serve = ("serve-batch", calibrated, folders / "ind", "--output", tmp_path / "rows.jsonl", *MACHINE)
    for words, message in (
        (("--log", tmp_path / "nowhere" / "log"), "--log"),
        (("--max-reject-rate", 1.5), "--max-reject-rate 1.5"),
        (("--format", "csv"), "--format csv contradicts"),
        (("--format", "tsv"), "jsonl"),
    ):
        run(*serve, *words).assert_wrong_usage(message)
    flags_all = ("--save-flagged", tmp_path / "file")
    run(*serve, *flags_all).assert_wrong_usage("--save-flagged", "is not a folder")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


FULL_DISK = """
mkdir full && mount -t tmpfs -o size="$1" tmpfs full || exit 7
shift; "$@"
echo "first $?" >&2; mount -o remount,size=64m full
"$@" --resume > /dev/null
echo "resumed $?" >&2
cp -r full left
"""


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("unshare"), reason="no unshare")
def test_a_disk_full_of_rows_logs_and_flagged_files_is_told_and_loses_nothing(
    bundle: Path, images: Path, tmp_path: Path, undisturbed: Undisturbed, subtests: pytest.Subtests
) -> None:
    for name, size in (("rows.jsonl", "24k"), ("rows", "64k"), ("rows", "300k")):
        with subtests.test(name=name, size=size):
            (place := tmp_path / f"{name}-{size}").mkdir()
            words = ("--output", f"full/{name}", "--save-flagged", "full/kept", "--log", "full/log", *PART, *MACHINE)
            command = [sys.executable, "-c", PROGRAM, "serve-batch", str(bundle), str(images), *words]
            script = ["unshare", "-rm", "sh", "-c", FULL_DISK, "sh", size, *command]
            done = subprocess.run(script, capture_output=True, text=True, check=False, cwd=place)
            if "first" not in done.stderr:
                pytest.skip(f"users may not mount a file system: {done.stderr}")
            assert re.search(
                r"^error: Cannot write .*\(No space left on device\).*\nfirst 1$", done.stderr, re.MULTILINE
            )
            assert (done.stderr.count("error:"), "resumed 3" in done.stderr) == (1, True)
            found = contents(place / "left")
            assert found.pop("log")
            assert found == undisturbed(images, name, flagged=True)
