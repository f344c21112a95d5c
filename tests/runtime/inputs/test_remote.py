"""URLs through fsspec's own file systems: local, inside a zip, over HTTP where its package is installed."""

import functools
import gzip
import http.server
import importlib.util
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from read_items import read_items
from tars import member, png, tar

from diffood.errors import MissingExtraError, RejectedImage, UsageError
from diffood.runtime.images.decode import ImageLimits, ImageShape
from diffood.runtime.inputs.decoding import DecodeOptions, decode_ahead
from diffood.runtime.inputs.items import Item, Pause
from diffood.runtime.inputs.labels import LeftOut
from diffood.runtime.inputs.open import open_inputs
from diffood.runtime.inputs.reading import ReadOptions
from diffood.runtime.inputs.remote import RemoteFile
from diffood.runtime.inputs.urls import UrlRules

pytest.importorskip("fsspec")

LIMITS = ImageLimits(max_bytes=10_000)
FILES = {"a.png": png(1), "a/b.png": png(2), "a/z/c.png": png(3), "b.png": png(4)}


RULES = UrlRules(zipped=True, private=True)


def read(*inputs: str) -> dict[str, bytes | str]:
    return read_items(inputs, LIMITS, RULES)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """FILES, a hidden file, a shard and a table in a folder."""
    for name, data in {**FILES, ".hidden.png": b"", "a/.cache/x.png": b""}.items():
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_bytes(data)
    (tmp_path / "s.tar").write_bytes(tar([member("m.png", png(5))]))
    (tmp_path / "s.tgz").write_bytes(gzip.compress(tar([member("m.png", png(6))])))
    pq.write_table(pa.table({"image": [png(7)]}), tmp_path / "t.parquet")
    return tmp_path


@pytest.fixture
def served(tree: Path) -> Iterator[str]:
    """The folder over HTTP."""
    if importlib.util.find_spec("aiohttp") is None:
        pytest.skip("fsspec[http] is not installed")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tree))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def zipped(tree: Path) -> str:
    """FILES in a zip, as the ending of a chained URL."""
    with zipfile.ZipFile(tree / "x.zip", "w") as archive:
        for name, data in FILES.items():
            archive.writestr(f"in/{name}", data)
    return f"::file://{tree}/x.zip"


def test_a_folder_has_the_ids_and_the_order_of_a_local_one(tree: Path, zipped: str) -> None:
    wanted = list(read(str(tree / "tree")).items())
    assert wanted == sorted(FILES.items())
    for url in (f"file://{tree}/tree", f"file://{tree}/tree/", f"zip://in{zipped}"):
        assert list(read(url).items()) == wanted, url


def test_a_pattern_and_a_file_have_their_urls_as_ids(tree: Path, zipped: str) -> None:
    for base, ending in ((f"file://{tree}/tree", ""), ("zip://in", zipped)):
        assert list(read(f"{base}/*.png{ending}").items()) == [
            (f"{base}/a.png{ending}", png(1)),
            (f"{base}/b.png{ending}", png(4)),
        ]
        assert read(f"{base}/a/b.png{ending}") == {f"{base}/a/b.png{ending}": png(2)}


def test_shards_and_tables_are_opened(tree: Path) -> None:
    base = f"file://{tree}"
    assert read(f"{base}/s.tar", f"{base}/s.tgz", f"{base}/t.parquet") == {
        f"{base}/s.tar/m.png": png(5),
        f"{base}/s.tgz/m.png": png(6),
        f"{base}/t.parquet/0": png(7),
    }
    assert list(read(f"{base}/s.*")) == [f"{base}/s.tar/m.png", f"{base}/s.tgz/m.png"]


def test_a_list_may_hold_urls(tree: Path, served: str) -> None:
    (tree / "list.txt").write_text(f"{served}/tree/b.png\n{served}/none.png\ntree/a.png\n{served}/s.tar?v=1\n")
    found = read(f"@{tree}/list.txt")
    names = [f"{served}/tree/b.png", f"{served}/none.png", "tree/a.png", f"{served}/s.tar?v=1/m.png"]
    assert list(found) == names
    assert [found[name] for name in names[::2]] == [png(4), png(1)]
    assert found[names[3]] == png(5)
    assert "cannot be read (ClientResponseError: 404" in str(found[names[1]])


def test_the_limit_on_bytes_holds(tree: Path) -> None:
    (tree / "big.png").write_bytes(bytes(10_001))
    assert "more bytes than the limit, 10000" in str(read(f"file://{tree}/big.png").popitem()[1])


def test_a_url_that_names_nothing_is_wrong_usage(subtests: pytest.Subtests) -> None:
    for url, words in [
        ("file:///nowhere/at/all", "cannot be listed"),
        ("file:///nowhere/*.png", "matches no file"),
        ("nonsense://x/y.png", "its protocol is none of http, https, s3, gs, az"),
        ("zip://*.png::file:///nowhere.zip", "cannot be used"),
    ]:
        with subtests.test(url=url), pytest.raises(UsageError, match=words):
            read(url)


@pytest.mark.skipif(importlib.util.find_spec("s3fs") is not None, reason="s3fs is installed")
def test_a_missing_package_of_a_protocol_is_named() -> None:
    with pytest.raises(MissingExtraError, match="s3fs"):
        open_inputs(["s3://bucket/x.png"], ReadOptions(LIMITS))


def test_without_fsspec_the_extra_is_named(tree: Path) -> None:
    program = f"""
import sys
sys.modules["fsspec"] = sys.modules["fsspec.core"] = None
from diffood.errors import MissingExtraError
from diffood.runtime.inputs.open import open_inputs
from diffood.runtime.inputs.reading import ReadOptions
try:
    open_inputs(["file://{tree}/tree"], ReadOptions())
except MissingExtraError as error:
    assert "pip install 'diffood[remote]'" in str(error)
else:
    raise SystemExit("no error")
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.skipif(sys.platform != "linux", reason="decoding processes")
def test_decoding_processes_read_urls_themselves(tree: Path, zipped: str) -> None:
    items: list[Item] = [
        RemoteFile(name, f"{base}/{name}{ending}", RULES)
        for base, ending in ((f"file://{tree}/tree", ""), ("zip://in", zipped))
        for name in FILES
    ]
    pairs = list(decode_ahead(items, ImageShape(1, 4, 4), LIMITS, 8, DecodeOptions(1)))
    greys = [int(pair[1].pixels.max()) for pair in pairs if not isinstance(pair, Pause) and pair[1].pixels is not None]
    assert greys == [1, 2, 3, 4] * 2


def test_images_come_over_http(served: str) -> None:
    assert read(f"{served}/tree/a.png", f"{served}/s.tar", f"{served}/t.parquet") == {
        f"{served}/tree/a.png": png(1),
        f"{served}/s.tar/m.png": png(5),
        f"{served}/t.parquet/0": png(7),
    }


def test_links_to_folders_and_labels_at_a_url_are_told(tree: Path) -> None:
    (tree / "tree" / "link").symlink_to(tree / "tree" / "a")
    (tree / "tree" / "b.txt").write_text("label")
    reading = ReadOptions(LIMITS)
    found = [item for item in open_inputs([f"file://{tree}/tree"], reading) if isinstance(item, Item)]
    assert [item.id for item in found] == ["a.png", "a/b.png", "a/z/c.png", "b.png", "link"]
    with pytest.raises(RejectedImage, match=r"a link to a folder|Is a directory"):  # by the version of fsspec
        found[-1].read(LIMITS)
    assert reading.left_out == LeftOut(labels=1, hidden=2)


def test_zips_at_a_url_are_read(tree: Path) -> None:
    with zipfile.ZipFile(tree / "z.zip", "w") as archive:
        archive.writestr("m.png", png(8))
    assert read(f"file://{tree}/z.zip") == {f"file://{tree}/z.zip/m.png": png(8)}
