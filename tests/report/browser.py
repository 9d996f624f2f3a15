"""A headless Chromium, driven through its DevTools protocol over two pipes: no driver, no further package."""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

FLAGS = (
    "--headless=new",
    "--no-sandbox",  # tests run as root in containers
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--window-size=1500,1000",
    "--remote-debugging-pipe",
)


def find_chromium():
    """Path of an installed Chromium, or None."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for path in map(shutil.which, names) if path), None)


class Browser:
    """One page of a Chromium of its own; `errors` and `requests` collect what the page did.

    errors: texts of uncaught exceptions, console.error and failed loads; requests: addresses that left the
    page (anything but file:, data:, blob: and about:).
    """

    def __init__(self, program, timeout_s=60):
        self.timeout_s = timeout_s
        self.errors, self.requests, self._events = [], [], []
        self._number, self._buffer, self._session = 0, b"", None
        self._folder = tempfile.mkdtemp(prefix="chromium-")
        here_in, self._out = os.pipe()
        self._in, here_out = os.pipe()
        # Chromium reads commands from descriptor 3 and writes answers to 4
        command = f'exec "$@" 3<&{here_in} 4>&{here_out}'
        self._process = subprocess.Popen(
            ["bash", "-c", command, "chromium", program, *FLAGS, f"--user-data-dir={self._folder}"],
            pass_fds=(here_in, here_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(here_in)
        os.close(here_out)
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self._session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self(f"{domain}.enable")

    def __call__(self, method, **params):
        """Send one command of the protocol; returns its result. RuntimeError when the browser refuses it."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + self.timeout_s
        while (answer := self._read(deadline)).get("id") != self._number:
            self._note(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer.get("result", {})

    def _read(self, deadline):
        while b"\0" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._in], [], [], left)[0]:
                raise TimeoutError(f"Chromium gave no answer within {self.timeout_s} s")
            piece = os.read(self._in, 1 << 20)
            if not piece:
                raise RuntimeError(f"Chromium ended with code {self._process.wait()}")
            self._buffer += piece
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)

    def _note(self, event):
        method, params = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
            self.errors.append(" ".join(str(a.get("value", a.get("description"))) for a in params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')[:200]}")
        elif method == "Network.requestWillBeSent":
            url = params["request"]["url"]
            if not url.startswith(("file:", "data:", "blob:", "about:")):
                self.requests.append(url)

    def open(self, path):
        """Open a file and wait until it is loaded."""
        self.errors.clear()
        self.requests.clear()
        self("Page.navigate", url=Path(path).resolve().as_uri())
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def evaluate(self, script):
        """Value (JSON) of a JavaScript expression; a promise is awaited."""
        answer = self("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise RuntimeError(
                f"{script}: {details.get('exception', {}).get('description', details['text'])}"
            )
        return answer["result"].get("value")

    def wait(self, condition):
        """Wait until a JavaScript expression is true."""
        deadline = time.monotonic() + self.timeout_s
        while not self.evaluate(condition):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not true within {self.timeout_s} s: {condition}")
            time.sleep(0.05)

    def screenshot(self, path, whole=False):
        """Write what the window shows, or the whole page, as PNG."""
        answer = self("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        Path(path).write_bytes(base64.b64decode(answer["data"]))

    def close(self):
        """End this Chromium and its children, and drop its profile."""
        try:
            self._session = None
            self("Browser.close")
            self._process.wait(20)
        except (OSError, RuntimeError, TimeoutError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._out)
        os.close(self._in)
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
