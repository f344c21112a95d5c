"""Parquet tables: rows become items with the right bytes and ids; a broken table costs a row."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from killed_starts import kill_at_start
from tars import png

from diffood.errors import RejectedImage
from diffood.runtime.images.decode import ImageLimits
from diffood.runtime.inputs import table_worker
from diffood.runtime.inputs.items import InlineItem
from diffood.runtime.inputs.reading import InputRules, ReadOptions
from diffood.runtime.inputs.tables import list_table

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes with limits as Linux has them")

LIMITS = ImageLimits(max_bytes=1000)
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write(folder: Path, values: Sequence[Any], kind: pa.DataType, name: str = "image", **columns: Any) -> Path:
    path = folder / "t.parquet"
    pq.write_table(pa.table({name: pa.array(values, kind), **columns}), path, row_group_size=3)
    return path


def rows(path: Path, rules: InputRules = InputRules(), limits: ImageLimits = LIMITS) -> list[tuple[str, bytes | str]]:  # noqa: B008
    found = []
    for item in list_table(str(path), "t.parquet", ReadOptions(limits, rules)):
        try:
            found.append((item.id, item.read(limits)))
        except RejectedImage as error:
            found.append((item.id, str(error)))
    return found


def test_rows_are_items_in_their_order(tmp_path: Path) -> None:
    for kind in [pa.binary(), pa.large_binary(), STRUCT]:
        images: list[Any] = [png(number) for number in range(40)]
        values = [{"bytes": image, "path": "x.png"} for image in images] if kind == STRUCT else images
        found = rows(write(tmp_path, values, kind))
        assert found == [(f"t.parquet/{number}", image) for number, image in enumerate(images)], kind


def test_a_column_may_have_another_name_and_ids_a_column_of_their_own(tmp_path: Path) -> None:
    path = write(tmp_path, [png(1), png(2)], pa.binary(), "photo", key=["a/ü", "b"], number=[7, 2**40])
    assert rows(path, InputRules("photo", "key")) == [("a/ü", png(1)), ("b", png(2))]
    assert rows(path, InputRules("photo", "number")) == [("7", png(1)), (str(2**40), png(2))]


def test_a_row_that_cannot_be_used_is_one_row(tmp_path: Path) -> None:
    values = [{"bytes": png(1), "path": None}, None, {"bytes": None, "path": "/etc/passwd"}, {"bytes": bytes(1001)}]
    found = rows(write(tmp_path, values, STRUCT))
    assert found[0] == ("t.parquet/0", png(1))
    assert "no image bytes" in str(found[1][1])
    assert "no image bytes" in str(found[2][1])
    assert "has 1001 bytes and the limit is 1000" in str(found[3][1])


def test_a_row_without_a_usable_id_is_refused_under_its_number(tmp_path: Path) -> None:
    keys = pa.array([b"good", b"\xff\xfe", b"", None, b"x" * 5000]).cast(pa.string(), safe=False)
    found = rows(write(tmp_path, [png(1)] * 5, pa.binary(), key=keys), InputRules("image", "key"))
    assert found[0] == ("good", png(1))
    assert [name for name, _ in found[1:]] == [f"t.parquet/{number}" for number in range(1, 5)]
    assert all("'key' is not an id" in str(reason) for _, reason in found[1:])


def test_a_missing_column_is_explained_in_a_row(tmp_path: Path) -> None:
    table = write(tmp_path, [png(1)], pa.binary(), key=[1])
    for columns, reason in [
        (InputRules("nothing"), "it has no column 'nothing', only image, key"),
        (InputRules("image", "nothing"), "it has no column 'nothing'"),
        (InputRules("key"), "its column 'key' has the type int64, neither bytes nor {bytes, path}"),
    ]:
        [(name, said)] = rows(table, columns)
        assert name == "t.parquet", columns
        assert reason in str(said), columns


def test_a_file_that_is_no_parquet_is_one_row(tmp_path: Path) -> None:
    for data in [b"", b"PAR1", b"this is no table", b"PAR1" + bytes(100) + b"PAR1"]:
        (tmp_path / "t.parquet").write_bytes(data)
        [(name, said)] = rows(tmp_path / "t.parquet")
        assert name == "t.parquet", data
        assert "cannot be read as Parquet (" in str(said), data
        (tmp_path / "t.parquet").unlink()
        [(name, said)] = rows(tmp_path / "t.parquet")
        assert "it is missing or not a regular file" in str(said), data


def test_rows_before_a_damaged_page_are_kept(tmp_path: Path) -> None:
    images = [png(number) for number in range(60)]
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"image": images}), path, row_group_size=16, use_dictionary=False, compression="gzip")
    data = bytearray(path.read_bytes())
    start = pq.ParquetFile(path).metadata.row_group(2).column(0).data_page_offset
    data[start : start + 60] = b"\xff" * 60
    path.write_bytes(data)
    found = rows(path)
    assert [value for _, value in found[:-1]] == images[: len(found) - 1]
    assert len(found) - 1 >= 16
    assert found[-1][0] == "t.parquet"
    assert "cannot be read as Parquet" in str(found[-1][1])


def test_no_damage_to_a_table_ends_the_listing_with_an_error(tmp_path: Path, subtests: pytest.Subtests) -> None:
    import numpy as np

    path = write(tmp_path, [png(number) for number in range(20)], pa.binary())
    whole = path.read_bytes()
    for seed in range(6):
        with subtests.test(seed=seed):
            rng, data = np.random.default_rng(seed), bytearray(whole)
            for _ in range(20):
                data[int(rng.integers(max(0, len(data) - 700) * (seed % 2), len(data)))] = int(rng.integers(256))
            path.write_bytes(data)
            for item in list_table(str(path), "t", ReadOptions(LIMITS)):
                item.id.encode()


def test_rows_are_read_as_they_are_needed(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"image": [bytes(900)] * 20_000}), path, row_group_size=20_000)
    items = list_table(str(path), "t", ReadOptions(LIMITS))
    assert isinstance(next(items), InlineItem)
    items.close()  # type: ignore[attr-defined]


def test_a_reader_that_dies_is_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, [png(1)], pa.binary())
    monkeypatch.setattr(
        "diffood.runtime.child.START",
        "import os, sys; sys.path[:] = {path!r}; from {module} import main\n"
        "import diffood.runtime.inputs.table_worker as worker\n"
        "worker.read_rows = lambda *given: os.abort()\nmain()",
    )
    [(name, said)] = rows(path)
    assert name == "t.parquet"
    assert "the process that read it ended: crashed with signal 6, SIGABRT" in str(said)
    assert table_worker.MEGABYTES > 0


def test_a_reader_that_ends_once_or_does_not_start_costs_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    images = [png(number) for number in range(40)]
    path = write(tmp_path, images, pa.binary())
    expected = [(f"t.parquet/{number}", image) for number, image in enumerate(images)]
    for number, name in enumerate(("SIGKILL", "SIGSTOP")):
        with subtests.test(signal=name):
            monkeypatch.setattr("diffood.runtime.inputs.tables.SECONDS", 4.0)
            monkeypatch.setattr(
                "diffood.runtime.child.START",
                "import os, signal, sys; sys.path[:] = {path!r}; from {module} import main\n"
                "import diffood.runtime.inputs.table_worker as worker\n"
                "send = worker._send\n"
                f"again = os.path.exists('{tmp_path}/{number}')\n"
                f"open('{tmp_path}/{number}', 'a').close()\n"
                "def send_some(pipe, identity, data, numbers=iter(range(100))):\n"
                "    if next(numbers) == 17 and not again:\n"
                f"        os.kill(os.getpid(), signal.{name})\n"
                "    send(pipe, identity, data)\n"
                "worker._send = send_some\nmain()",
            )
            assert rows(path) == expected
            assert (tmp_path / str(number)).exists()
    monkeypatch.undo()
    (tmp_path / "starts").mkdir()
    kill_at_start(tmp_path / "starts", monkeypatch, times=2)
    assert rows(path) == expected
    assert (tmp_path / "starts" / "1").exists()
