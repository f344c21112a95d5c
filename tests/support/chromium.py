"""Drives headless Chromium by the DevTools protocol: opens a page, gives it files, and keeps what it asks for and says.

Each target of the page, its workers too, is attached to before it runs, so that no request or message is missed.
"""

import asyncio
import base64
import contextlib
import functools
import http.server
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0",
)  # fmt: skip
WEBGPU = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")  # a GPU that the CPU plays
CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")  # a moving picture, allowed at once
SECONDS = 240  # of one wait; an engine on a GPU that the CPU plays compiles for a minute


class BrowserPage:
    """A page that is open.

    Attributes:
        requests: URL of every request that it and its workers made.
        complaints: Errors and warnings of its console, and exceptions.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.workers: list[str] = []  # their sessions
        self._loop, self._socket, self._asked = loop, socket, 0
        self._prepare(None)

    def _prepare(self, session: str | None) -> None:
        attach = {"autoAttach": True, "waitForDebuggerOnStart": True, "flatten": True}
        for method, values in (("Network.enable", {}), ("Runtime.enable", {}), ("Log.enable", {}),
                               ("Target.setAutoAttach", attach), ("Runtime.runIfWaitingForDebugger", {})):  # fmt: skip
            self._send(method, session, **values)

    def _send(self, method: str, session: str | None, **values: Any) -> int:
        self._asked += 1
        message = {"id": self._asked, "method": method, "params": values}
        self._loop.run_until_complete(self._socket.send_json(message | ({"sessionId": session} if session else {})))
        return self._asked

    def call(self, method: str, session: str | None = None, **values: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        number, until = self._send(method, session, **values), time.monotonic() + SECONDS
        while True:
            received = self._loop.run_until_complete(self._socket.receive(timeout=until - time.monotonic()))
            message = json.loads(received.data)
            if message.get("id") == number:
                assert "result" in message, message
                return message["result"]
            if "method" in message:
                self._notice(message["method"], message["params"])

    def _notice(self, event: str, values: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            self.requests.append(values["request"]["url"])
        elif event == "Runtime.consoleAPICalled" and values["type"] in ("error", "warning", "assert"):
            self.complaints.append(str([argument.get("value") for argument in values["args"]]))
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(values["exceptionDetails"]))
        elif event == "Log.entryAdded" and values["entry"]["level"] in ("error", "warning"):
            self.complaints.append(values["entry"]["text"])
        elif event == "Target.attachedToTarget":
            self.workers.append(values["sessionId"])
            self._prepare(values["sessionId"])

    def evaluate(self, script: str, session: str | None = None) -> Any:
        """The value of an expression, awaited, in the page or in the worker of a session."""
        done = self.call("Runtime.evaluate", session, expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def wait_for(self, script: str) -> Any:
        """Wait until an expression is true, and return its value."""
        until = time.monotonic() + SECONDS
        while not (value := self.evaluate(f"document.readyState === 'complete' && ({script})")):
            assert time.monotonic() < until, (script, self.evaluate("document.body.innerText"), self.complaints)
            time.sleep(0.05)
        return value

    def give_files(self, selector: str, files: Iterable[Path]) -> None:
        """Choose files in an input, as a person does."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def show_as(self, width: int, height: int, *, dark: bool = False) -> None:
        """Give the window a size, also those of phones, and a colour scheme."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2, mobile=width < 500
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, path: Path) -> None:
        """Write what the window shows as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


@contextlib.contextmanager
def open_page(url: str, profile: Path, *options: str) -> Iterator[BrowserPage]:
    """A page in a browser of its own, with a new profile."""
    assert CHROMIUM is not None
    command = [CHROMIUM, *OPTIONS, *options, f"--user-data-dir={profile}", "about:blank"]
    browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    loop = asyncio.new_event_loop()
    client = loop.run_until_complete(_make_client())
    try:
        port = _wait_for_port(browser, profile / "DevToolsActivePort")
        page = BrowserPage(loop, loop.run_until_complete(_attach(client, port)))
        page.call("Page.navigate", url=url)
        yield page
    finally:
        loop.run_until_complete(client.close())
        browser.terminate()
        browser.wait()
        loop.close()


def _wait_for_port(browser: subprocess.Popen[bytes], file: Path) -> int:
    until = time.monotonic() + SECONDS
    while not (file.exists() and file.read_text().count("\n")):
        assert browser.poll() is None, "the browser ended"
        assert time.monotonic() < until, "the browser did not start"
        time.sleep(0.05)
    return int(file.read_text().split()[0])


async def _make_client() -> aiohttp.ClientSession:
    return aiohttp.ClientSession()


async def _attach(client: aiohttp.ClientSession, port: int) -> aiohttp.ClientWebSocketResponse:
    async with client.get(f"http://127.0.0.1:{port}/json/list") as answer:
        (target,) = [entry for entry in await answer.json() if entry["type"] == "page"]
    return await client.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    """`python -m http.server`, without its log; with the headers that let a page use threads if `isolated`."""

    isolated = False

    def end_headers(self) -> None:
        if self.isolated:
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        pass


class _Isolated(_Quiet):
    isolated = True


@contextlib.contextmanager
def serve_folder(folder: Path, *, isolated: bool = False) -> Iterator[str]:
    """The URL of a folder that is served as `python -m http.server` does."""
    handler = functools.partial(_Isolated if isolated else _Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
