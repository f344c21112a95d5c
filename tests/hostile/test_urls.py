"""URLs that others wrote, in lists, redirects, tables: none runs code, reads files or reaches a private address."""

import contextlib
import http.server
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from read_items import read_items
from tars import png

from diffood.errors import RejectedImage, UsageError
from diffood.runtime.images.decode import ImageLimits
from diffood.runtime.inputs.items import Item
from diffood.runtime.inputs.open import list_inputs, open_inputs
from diffood.runtime.inputs.reading import InputRules, ReadOptions
from diffood.runtime.inputs.urls import UrlRules, hide_secrets

pytest.importorskip("fsspec")
LIMITS = ImageLimits(max_bytes=10_000)
SECRETS = ("PASSWORD", "SIGNATURE", "TOKEN", "USER")


class Web(http.server.BaseHTTPRequestHandler):
    """/x.png is an image; /to?URL redirects; /denied is refused. Notes what it was asked for."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        path, _, query = self.path.partition("?")
        self.send_response({"/to": 302, "/denied": 403}.get(path, 200))
        body = png(3) if path == "/x.png" else b""
        if path == "/to":
            self.send_header("Location", query)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *words: object) -> None:
        """Stay silent."""


@pytest.fixture
def web() -> Iterator[tuple[int, list[str]]]:
    """A server on this machine: its port, and the paths it was asked for."""
    pytest.importorskip("aiohttp")
    asked: list[str] = []
    handler = type("Noting", (Web,), {"asked": asked})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port, asked
        server.shutdown()


def read(inputs: list[str], urls: UrlRules = UrlRules()) -> dict[str, bytes | str]:  # noqa: B008
    return read_items(inputs, LIMITS, urls)


def test_a_line_of_a_list_opens_no_protocol_but_the_allowed_ones(tmp_path: Path, subtests: pytest.Subtests) -> None:
    """An fsspec reference runs a template of its author's; a chain or file: reads what the list's writer chose."""
    ran = tmp_path / "ran"
    (tmp_path / "secret.png").write_bytes(png(9))
    code = "{{ cycler.__init__.__globals__.os.system('touch " + str(ran) + "') }}"
    evil = {"version": 1, "templates": {"u": code}, "refs": {"a.png": ["{{u}}", 0, 9]}}
    (tmp_path / "evil.json").write_text(json.dumps(evil))
    lines = [
        f"reference://a.png::file://{tmp_path}/evil.json",
        f"reference://a.png::{tmp_path}/evil.json",
        f"zip://x.png::reference://a.png::file://{tmp_path}/evil.json",
        f"file://{tmp_path}/secret.png",
        f"local://{tmp_path}/secret.png",
        f"FILE://{tmp_path}/secret.png",
        f"simplecache::file://{tmp_path}/secret.png",
        f"filecache::file://{tmp_path}/secret.png",
        f"blockcache::file://{tmp_path}/secret.png",
        f"dir::file://{tmp_path}/secret.png",
        f"http://h/x.png::file://{tmp_path}/secret.png",
        f"s3://b/x.png::file://{tmp_path}/secret.png",
        f"zip://x.png::file://{tmp_path}/a.zip",
        f"tar://x.png::file://{tmp_path}/a.tar",
        "memory://x.png",
        "data:image/png;base64,AAAA://",
        "ftp://h/x.png",
        "sftp://h/x.png",
        "git://x.png",
        "github://o:r@/x.png",
        "jupyter://h/x.png",
        "hf://x/x.png",
        "az://c@account.example.org/x.png",
    ]
    (tmp_path / "list.txt").write_text("\n".join([*lines, "secret.png"]))
    found = read([f"@{tmp_path}/list.txt"], UrlRules(zipped=True, private=True))
    assert found.pop("secret.png") == png(9)  # the rest of the list is read
    assert len(found) == len(lines)
    for name, reason in found.items():
        with subtests.test(name):
            assert " is refused: " in str(reason)
    assert not ran.exists()
    for line in lines:
        if not line.lower().startswith(("file:", "local:", "zip://x.png::file", "az:")):
            with subtests.test(typed=line), pytest.raises(UsageError, match=" is refused: "):
                read([line], UrlRules(zipped=True, private=True))
    with pytest.raises(UsageError, match="--allow-protocol zip"):
        read([f"zip://x.png::file://{tmp_path}/a.zip"])
    assert not ran.exists()


def test_no_cell_of_a_table_is_opened(tmp_path: Path, web: tuple[int, list[str]]) -> None:
    port, asked = web
    url = f"http://127.0.0.1:{port}/x.png"
    cells = [{"bytes": None, "path": url}, {"bytes": b"", "path": f"file://{tmp_path}/t.parquet"}]
    pq.write_table(
        pa.table({"image": cells, "key": [url, "https://USER:PASSWORD@h/x?sig=SIGNATURE&n=1"]}), tmp_path / "t.parquet"
    )
    rules = InputRules(id_column="key", urls=UrlRules(private=True))
    items = list(open_inputs([f"{tmp_path}/t.parquet"], ReadOptions(LIMITS, rules)))
    assert [item.id for item in items if isinstance(item, Item)] == [url, "https://***@h/x?sig=***&n=1"]
    for item in items:
        assert isinstance(item, Item)
        with contextlib.suppress(RejectedImage):
            assert item.read(LIMITS) == b""
    assert asked == []


def test_lists_and_redirects_reach_no_private_address(
    tmp_path: Path, web: tuple[int, list[str]], subtests: pytest.Subtests
) -> None:
    port, asked = web
    here = f"http://127.0.0.1:{port}"
    assert read([f"{here}/x.png"]) == {f"{here}/x.png": png(3)}  # typed
    hosts = ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "localhost", "0.0.0.0", "[0:0:0:0:0:ffff:7f00:1]"]
    for url in [f"http://{host}:{port}/x.png" for host in hosts]:
        (tmp_path / "list.txt").write_text(url)
        asked.clear()
        with subtests.test(listed=url):
            [reason] = read([f"@{tmp_path}/list.txt"]).values()
            assert asked == []
            assert "cannot be read" in str(reason)
    (tmp_path / "list.txt").write_text(f"{here}/x.png\n{here}/a.tar\n{here}/a.zip\n{here}/a.parquet")
    assert all("reach with --allow-private only" in str(reason) for reason in read([f"@{tmp_path}/list.txt"]).values())
    assert asked == []
    for target in (f"{here}/x.png", f"http://localhost:{port}/x.png", "/x.png"):
        with subtests.test(redirect=target):
            asked.clear()
            with pytest.raises(UsageError, match="with --allow-private only"):
                read([f"{here}/to?{target}"])
            assert set(asked) == {f"/to?{target}"}
            assert read([f"{here}/to?{target}"], UrlRules(private=True)) == {f"{here}/to?{target}": png(3)}
    (tmp_path / "list.txt").write_text(f"{here}/x.png\n{here}/to?/x.png")
    assert set(read([f"@{tmp_path}/list.txt"], UrlRules(private=True)).values()) == {png(3)}
    assert read([f"{here}/x.png", f"@{tmp_path}/list.txt"])[f"{here}/x.png"] == png(3)


def test_only_addresses_of_the_public_internet_are_public(subtests: pytest.Subtests) -> None:
    pytest.importorskip("aiohttp")
    from diffood.runtime.inputs.addresses import is_public

    private = (
        "127.0.0.1 127.9.9.9 10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 169.254.169.254 100.64.0.1 0.0.0.0 0.1.2.3 "
        "224.0.0.1 239.1.1.1 240.0.0.1 255.255.255.255 192.0.0.1 198.18.0.1 203.0.113.1 ::1 :: fe80::1 fe80::1%eth0 "
        "fc00::1 fd00:ec2::254 fec0::1 ff02::1 ::ffff:127.0.0.1 ::ffff:169.254.169.254 ::127.0.0.1 64:ff9b::7f00:1 "
        "64:ff9b::a9fe:a9fe 64:ff9b:1::7f00:1 2002:7f00:1:: 2002:a9fe:a9fe:: 2001:0:0:0:0:0:80ff:fffe 2001:db8::1"
    )
    for host in private.split():
        with subtests.test(private=host):
            assert not is_public(host)
    public = (
        "1.1.1.1",
        "93.184.216.34",
        "172.32.0.1",
        "2606:4700::1111",
        "::ffff:1.1.1.1",
        "64:ff9b::101:101",
        "2002:101:101::",
    )
    for host in public:
        with subtests.test(public=host):
            assert is_public(host)


def test_secrets_of_urls_are_hidden(subtests: pytest.Subtests) -> None:
    for url, shown in [
        ("https://USER:PASSWORD@h/a.png", "https://***@h/a.png"),
        ("https://TOKEN@h:8/a.png", "https://***@h:8/a.png"),
        ("https://USER:PASS@WORD@h/a.png", "https://***@h/a.png"),
        ("https://USER:PASS/WORD@h/a.png", "https://***@h/a.png"),
        ("https://USER:PASS?WORD@h/a.png", "https://***@h/a.png"),
        ("https://h/a@2x.png", "https://h/a@2x.png"),
        ("https://h:80/a@2x.png", "https://h:80/a@2x.png"),
        ("https://[2606::1]:80/a@2x.png", "https://[2606::1]:80/a@2x.png"),
        (
            "https://h/a.png?X-Amz-Credential=USER%2F1&X-Amz-Date=1&X-Amz-Signature=SIGNATURE",
            "https://h/a.png?X-Amz-Credential=***&X-Amz-Date=1&X-Amz-Signature=***",
        ),
        ("https://h/a.png?sv=1&sig=SIGNATURE%3D&se=2", "https://h/a.png?sv=1&sig=***&se=2"),
        ("https://h/a.png?%74oken=TOKEN", "https://h/a.png?%74oken=***"),
        ("https://h/a.png?n=7#access_token=TOKEN", "https://h/a.png?n=7#access_token=***"),
        ("https://h/a;jsessionid=TOKEN", "https://h/a;jsessionid=***"),
        ("https://h/a?token=TOKEN;TOKEN'TOKEN", "https://h/a?token=***"),
        (
            "https://h/a?page=2&size=8&id=0f8fad5b-d9cb-469f-a165-70867728950e",
            "https://h/a?page=2&size=8&id=0f8fad5b-d9cb-469f-a165-70867728950e",
        ),
        ("https://h/a?q=TOKENaGVsbG8gd29ybGQhIQ0123", "https://h/a?q=***"),
        ("403, url='https://USER:PASSWORD@h/a?sig=SIGNATURE')", "403, url='https://***@h/a?sig=***')"),
        ("a.png", "a.png"),
        ("a?b=c.png", "a?b=c.png"),
    ]:
        with subtests.test(url):
            assert hide_secrets(url) == shown


def test_no_secret_of_a_url_reaches_a_row_or_a_message(tmp_path: Path, web: tuple[int, list[str]]) -> None:
    port, _ = web
    base = f"http://USER:PASSWORD@127.0.0.1:{port}"
    secret = "?token=TOKEN&X-Amz-Signature=SIGNATURE&n="
    paths = ["x.png", "denied", "a.tar", "a.zip", "a.parquet", "to"]
    lines = [f"{base}/{path}{secret}{number}" for number, path in enumerate(paths)]
    lines += [
        f"reference://USER:PASSWORD@h/{secret}",
        f"http://USER:PASSWORD@127.0.0.1:99999/{secret}",
        f"http://USER:PASS/WORD@h{secret}",
    ]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    found = read([f"@{tmp_path}/list.txt"], UrlRules(private=True))
    assert len(found) == len(lines)
    assert found[f"http://***@127.0.0.1:{port}/x.png?token=***&X-Amz-Signature=***&n=0"] == png(3)
    said = io.StringIO()
    print(found, file=said)
    for line in [*lines, f"{base}/*.png{secret}", f"{base}/denied{secret}"]:
        for listing in (list_inputs, lambda names: list(open_inputs(names, ReadOptions(LIMITS)))):
            try:
                print(*[(item.id, item.place) for item in listing([line])], file=said)
            except Exception as error:
                print(error, file=said)
    assert [word for word in SECRETS if word in said.getvalue()] == []
