"""A headless Chromium, driven by the DevTools protocol: open a page, evaluate, click, type, take a picture."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from qmt_orchestration_tests.helpers import wait_until


class Page:
    """One tab. ``messages`` collects what the page logged as errors, refused resources included."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._number = socket, 0
        self.messages: list[str] = []
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """One command and its result."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            reply = json.loads(self._socket.recv(timeout=90))
            if reply.get("id") == self._number:
                assert "error" not in reply, reply
                return dict(reply["result"])
            if reply.get("method") == "Log.entryAdded" and reply["params"]["entry"]["level"] == "error":
                self.messages.append(reply["params"]["entry"]["text"])
            if reply.get("method") == "Runtime.exceptionThrown":
                self.messages.append(str(reply["params"]["exceptionDetails"]))

    def open(self, url: str) -> None:
        """Go there and wait until it is loaded."""
        self.send("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        reply = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in reply, reply["exceptionDetails"]
        return reply["result"].get("value")

    def until(self, script: str, timeout: float = 60.0) -> Any:
        """The first truthy value of a JavaScript expression."""
        return wait_until(
            lambda: self.run(f"(() => {{ try {{ return {script} }} catch {{ return null }} }})()"), timeout, script, 0.1
        )

    def type(self, text: str) -> None:
        """Into whatever has the focus."""
        self.send("Input.insertText", text=text)

    def press(self, key: str) -> None:
        """A key by name, e.g. Enter."""
        code = {"Enter": 13, "Tab": 9, "Escape": 27, "ArrowDown": 40}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    def size(self, width: int, height: int, *, mobile: bool = False, dark: bool = False) -> None:
        """Window size in CSS pixels, and the colour scheme the visitor prefers."""
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: Path, *, whole: bool = True) -> None:
        """A PNG of the page."""
        shot = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def chromium() -> Iterator[Page]:
    """A tab of a fresh Chromium; the test is skipped where there is none on the PATH."""
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if binary is None:
        pytest.skip("needs a Chromium on the PATH")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        command = [binary, *flags, "--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            told = Path(folder) / "DevToolsActivePort"
            port = wait_until(lambda: told.exists() and told.read_text().split("\n")[0], 90, "Chromium has started")

            def tab() -> str:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=10) as reply:
                    targets = json.load(reply)
                return next((str(t["webSocketDebuggerUrl"]) for t in targets if t["type"] == "page"), "")

            with connect(wait_until(tab, 90, "a tab"), max_size=None) as socket:
                yield Page(socket)
        finally:
            process.terminate()
            process.wait(15)
