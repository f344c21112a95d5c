"""serve-batch on each kind of input, and on inputs that fail while they are served."""

import io
import json
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="decoding processes and signals")

MACHINE = ("--batch", "8", "--threads", "1", "--decoders", "1")
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, folders: Path) -> Path:
    """The ten images of folders/ind as a shard with labels, a compressed shard and a table."""
    root = tmp_path_factory.mktemp("packed")
    images = [path.read_bytes() for path in sorted((folders / "ind").iterdir())]
    for name, mode in (("s.tar", "w"), ("z.tar.gz", "w:gz")):
        with tarfile.open(root / name, mode) as archive:  # type: ignore[call-overload]
            for number, data in enumerate(images):
                for ending, content in (("png", data), ("cls", b"3")):
                    info = tarfile.TarInfo(f"{number:04d}.{ending}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
    structs = [{"bytes": data, "path": None} for data in images]
    pq.write_table(pa.table({"image": structs, "key": [f"k{number}" for number in range(10)]}), root / "t.parquet")
    return root


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_all_kinds_of_inputs_give_the_scores_of_the_files(
    run: Run, calibrated: Path, folders: Path, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(packed)
    output = tmp_path / "rows.jsonl"
    url = f"file://{packed}/s.tar"
    done = run(
        "serve-batch", calibrated, folders / "ind", "s.tar", "z.tar.gz", "t.parquet", url, "--output", output, *MACHINE
    )
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("50 files: 50 scored, ")
    assert "left out    30 labels of images: they have no rows" in done.out
    found = rows(output)
    values = [(row["sha256"], row["score"], row["p_value"], row["predicted_class"]) for row in found]
    assert values == values[:10] * 5
    assert [row["id"] for row in found[10::10]] == [
        "s.tar/0000.png",
        "z.tar.gz/0000.png",
        "t.parquet/0",
        f"{url}/0000.png",
    ]


def test_columns_of_a_table_are_named(run: Run, calibrated: Path, packed: Path, tmp_path: Path) -> None:
    words = ("serve-batch", calibrated, packed / "t.parquet", "--output", tmp_path / "rows.jsonl", *MACHINE)
    assert run(*words, "--id-column", "key").code == 0
    assert [row["id"] for row in rows(tmp_path / "rows.jsonl")] == [f"k{number}" for number in range(10)]
    done = run(*words, "--image-column", "photo")
    assert done.code == 3
    assert "it has no column 'photo', only image, key" in done.out


def test_a_shard_cut_in_the_middle_keeps_its_rows_and_ends_with_3(
    run: Run, calibrated: Path, packed: Path, tmp_path: Path
) -> None:
    data = (packed / "s.tar").read_bytes()
    (tmp_path / "s.tar").write_bytes(data[: len(data) // 2])
    done = run(
        "serve-batch",
        calibrated,
        tmp_path / "s.tar",
        packed / "t.parquet",
        "--output",
        tmp_path / "rows.csv",
        *MACHINE,
        "--json",
    )
    assert done.code == 3
    assert done.content["scored"] >= 14
    assert any("its rest after the last row, cannot be read" in reason for reason in done.content["reasons"])


def test_paths_come_from_standard_input(calibrated: Path, folders: Path, tmp_path: Path) -> None:
    names = [str(path) for path in sorted((folders / "ind").iterdir())]
    done = subprocess.run(
        [*command(calibrated, tmp_path), "-"], input="\n".join([*names, "gone.png"]), text=True, timeout=120,
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 3, done
    assert [row["id"] for row in rows(tmp_path / "rows.jsonl")] == [*names, "gone.png"]
    assert [row["status"] for row in rows(tmp_path / "rows.jsonl")] == ["ok"] * 10 + ["rejected"]


def test_a_watched_folder_is_served_as_files_come(calibrated: Path, folders: Path, tmp_path: Path) -> None:
    watched = tmp_path / "camera"
    watched.mkdir()
    images = sorted((folders / "ind").iterdir())
    (watched / "first.png").write_bytes(images[0].read_bytes())
    words = [*command(calibrated, tmp_path), "--watch", str(watched), "--watch-idle", "3"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: (tmp_path / "rows.jsonl.partial").exists() and (tmp_path / "rows.jsonl.partial").stat().st_size)
    (watched / "second.png").write_bytes(images[1].read_bytes())
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert [row["id"] for row in rows(tmp_path / "rows.jsonl")] == ["first.png", "second.png"]
    assert out.startswith("2 files: 2 scored")


def test_an_interrupt_ends_a_watch_and_its_processes(calibrated: Path, tmp_path: Path) -> None:
    (tmp_path / "camera").mkdir()
    words = [*command(calibrated, tmp_path), "--watch", str(tmp_path / "camera")]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for((tmp_path / "rows.jsonl.partial").exists)
    time.sleep(0.5)
    inner = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in inner))


def test_inputs_that_cannot_be_used_are_wrong_usage(run: Run, calibrated: Path, folders: Path, tmp_path: Path) -> None:
    images = str(folders / "ind")
    for words, word in (
        (("--watch", "nowhere"), "--watch nowhere is not a folder"),
        ((images, "--watch-idle", "5"), "give the folder with --watch DIR"),
        (("file:///nowhere/x.png",), "cannot be listed"),
        (("nonsense://x",), "its protocol is none of"),
        ((images, "--decoders", "65"), "--decoders"),
        ((images, "--decode-timeout", "0"), "--decode-timeout"),
    ):
        run("serve-batch", calibrated, *words, "--output", tmp_path / "rows.jsonl").assert_wrong_usage(word)
    assert list(tmp_path.iterdir()) == []


def test_threads_decode_if_no_processes_are_asked_for(
    run: Run, calibrated: Path, folders: Path, tmp_path: Path
) -> None:
    for number in ("0", "2"):
        words = ("--batch", "8", "--threads", "1", "--decoders", number, "--output", tmp_path / number / "rows.jsonl")
        assert run("serve-batch", calibrated, folders / "broken", *words).code == 3
    assert (tmp_path / "0" / "rows.jsonl").read_bytes() == (tmp_path / "2" / "rows.jsonl").read_bytes()


def command(bundle: Path, folder: Path) -> list[str]:
    words = ("serve-batch", bundle, "--output", folder / "rows.jsonl", *MACHINE)
    return [sys.executable, "-m", "diffood", *map(str, words)]


def wait_for(happened: Callable[[], object]) -> None:
    for _ in range(1200):
        if happened():
            return
        time.sleep(0.05)
    pytest.fail("it did not happen within a minute")
