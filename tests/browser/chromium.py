"""Chromium, driven through the DevTools protocol over a pipe: no driver, no further package, no port."""

import base64
import contextlib
import itertools
import json
import os
import queue
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.services.machine import Patience
from tests.services.process import found

PROGRAMS: Final = ("chromium", "chromium-browser", "chromium-headless-shell", "google-chrome")
_OPTIONS: Final = (
    *("--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-extensions"),
    *("--hide-scrollbars", "--force-device-scale-factor=1", "--lang=en"),
)
_ANSWER_SECONDS: Final = 60.0


class Chromium:
    """A browser without a window.

    What goes wrong in its pages is in `complaints`, and each address that they ask for in `requests`.
    """

    def __init__(self, profile: Path) -> None:
        program = found("Chromium", next(filter(None, map(shutil.which, PROGRAMS)), None), "apt-get install chromium")
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        # It reads from its descriptor 3, and writes to 4.
        shell = 'in=$1; out=$2; shift 2; exec "$@" 3<&"$in" 4>&"$out"'
        command = [program, *_OPTIONS, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(
            ["bash", "-c", shell, "bash", str(to_read), str(to_write), *command],
            pass_fds=(to_read, to_write),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(to_read)
        os.close(to_write)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self._answers: dict[int, queue.SimpleQueue[dict[str, Any]]] = {}
        self._reader = threading.Thread(target=self._listen, name="chromium", daemon=True)
        self._reader.start()

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Return what a method of the protocol returns."""
        number = next(self._ids)
        answer = self._answers[number] = queue.SimpleQueue()
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        with self._lock:
            os.write(self._write, json.dumps(message).encode() + b"\0")
        try:
            got = answer.get(timeout=_ANSWER_SECONDS)
        except queue.Empty:
            raise AssertionError(f"Chromium does not answer {method} (exit code {self._process.poll()})") from None
        if "error" in got:
            raise AssertionError(f"{method}: {got['error']}")
        result: dict[str, Any] = got["result"]
        return result

    def page(self, width: int = 1280, height: int = 760, *, dark: bool = False) -> "Page":
        """Open a page with cookies and a storage of its own."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        page.look_like(width, height, dark=dark)
        return page

    def _listen(self) -> None:
        rest = b""
        while piece := os.read(self._read, 1 << 16):
            *messages, rest = (rest + piece).split(b"\0")
            for message in map(json.loads, messages):
                if "id" in message:
                    self._answers.pop(message["id"]).put(message)
                elif message["method"] == "Network.requestWillBeSent":
                    self.requests.append(message["params"]["request"]["url"])
                elif message["method"] == "Runtime.exceptionThrown":
                    self.complaints.append(str(message["params"]["exceptionDetails"])[:1000])
                elif message["method"] == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
                    entry = message["params"]["entry"]
                    self.complaints.append(f"{entry['text']} {entry.get('url', '')}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join()
        os.close(self._read)
        os.close(self._write)


class Page:
    """One page of the browser."""

    def __init__(self, browser: Chromium, session: str) -> None:
        self._browser = browser
        self._session = session

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Return what a method of the protocol returns."""
        return self._browser.call(method, self._session, **parameters)

    def look_like(self, width: int, height: int, *, dark: bool = False) -> None:
        """Take this size, in CSS pixels, and this colour scheme."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, url: str) -> None:
        """Go to an address."""
        self.call("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete'")

    def reload(self) -> None:
        """Load the page anew."""
        self.evaluate("window.isOld = true")
        self.call("Page.reload")
        self.wait_for("!window.isOld && document.readyState === 'complete'")

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, awaited."""
        got = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in got:
            raise AssertionError(f"{expression}: {got['exceptionDetails']}")
        return got["result"].get("value")

    def wait_for(self, expression: str, seconds: float = 15.0) -> Any:
        """Look until the expression is true, and return its value."""
        patience = Patience(seconds)
        while True:
            try:
                # An element has no value that could be handed over.
                value = self.evaluate(f"(found => found instanceof Element || found)({expression})")
            except AssertionError as error:
                # The page is being replaced by another one.
                if "context" not in str(error) and "navigat" not in str(error):
                    raise
                value = None
            if value:
                return value
            if patience.is_over:
                seen = self.evaluate("document.body.innerText")
                raise AssertionError(f"not within {patience}: {expression}\n{seen}\n{self._browser.complaints}")
            time.sleep(0.03)

    def click(self, selector: str) -> None:
        """Click on an element once it is there, and nothing lies over it: in one go, for a page may move meanwhile."""
        there = json.dumps(selector)
        self.wait_for(
            f"(() => {{ const e = document.querySelector({there}); if (!e || e.disabled) return false;"
            " e.scrollIntoView({block: 'nearest'}); const r = e.getBoundingClientRect(); if (!r.width) return false;"
            " if (!e.contains(document.elementFromPoint(r.x + r.width / 2, r.y + r.height / 2))) return false;"
            " e.click(); return true; })()"
        )

    def write(self, selector: str, text: str) -> None:
        """Put text into a field, in place of what is there, as from a keyboard."""
        self.wait_for(f"document.querySelector({json.dumps(selector)})")
        self.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.focus(); e.select(); }})()"
        )
        self.call("Input.insertText", text=text)

    def choose(self, selector: str, value: str) -> None:
        """Choose an option of a list by its value."""
        there, chosen = json.dumps(selector), json.dumps(value)
        self.evaluate(
            f"(() => {{ const e = document.querySelector({there}); e.value = {chosen};"
            " e.dispatchEvent(new Event('change', {bubbles: true})); })()"
        )

    def picture(self, path: Path) -> None:
        """Write a picture of the page, as PNG."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
