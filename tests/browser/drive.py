"""Drives headless Chromium for tests of pages that are opened from disk.

    with Browser() as page:
        page.open("out/report.html", width=390, height=844, dark=True)
        assert page.eval("document.querySelectorAll('svg path').length") > 3
        page.move(*page.center("svg"))
        assert not page.console_errors()

Speaks WebDriver to chromedriver with the standard library alone. Needs the Debian packages of
`scripts/install-deps.sh browser`; a test calls require() first, which ends it with 77, the code for
"skipped", where they are missing. The browser resolves no name, so that a page which asks for
anything outside its file fails.
"""
import base64
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

SKIPPED = 77
FLAGS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-extensions", "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND",
]


def require():
    """Ends a test as skipped, with a note, where there is no browser."""
    missing = [name for name in ("chromium", "chromedriver") if not shutil.which(name)]
    if missing:
        print(f"skipped: {' and '.join(missing)} missing. Hint: scripts/install-deps.sh browser")
        sys.exit(SKIPPED)


class Browser:
    """One window. Coordinates are CSS pixels from the top left corner of what is shown."""

    def __init__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="capsfw-browser-", ignore_cleanup_errors=True)
        self._log = open(os.path.join(self._folder.name, "driver.log"), "w+")
        # Its own process group: whatever becomes of the test, no browser stays behind.
        self._driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=self._log,
                                        stderr=subprocess.STDOUT, start_new_session=True)
        self._session = None
        try:
            self._base = f"http://127.0.0.1:{self._port()}/session"
            options = {"binary": shutil.which("chromium"),
                       "args": FLAGS + [f"--user-data-dir={self._folder.name}/profile"]}
            wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options,
                                                       "goog:loggingPrefs": {"browser": "ALL"}}}}
            try:
                answer = self._send("POST", "", wanted)
            except RuntimeError:  # a busy machine: it did not start within a minute
                answer = self._send("POST", "", wanted)
            self._session = answer["sessionId"]
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        try:
            if self._session:
                self._send("DELETE", "")
        except OSError:
            pass
        self._session = None
        try:
            os.killpg(self._driver.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._driver.wait()
        self._log.close()
        self._folder.cleanup()

    def open(self, path, width=1280, height=900, dark=False):
        """Loads a file in a window of this size and waits until it is loaded."""
        self._devtools("Emulation.setDeviceMetricsOverride", width=width, height=height,
                       deviceScaleFactor=1, mobile=False)
        self._devtools("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self._send("POST", "/url", {"url": pathlib.Path(path).resolve().as_uri()})

    def eval(self, expression):
        """The value of a JavaScript expression in the page."""
        return self._send("POST", "/execute/sync", {"script": f"return ({expression})", "args": []})

    def wait(self, expression, seconds=20):
        """Waits until an expression is true; TimeoutError if it does not become so."""
        end = time.monotonic() + seconds
        while not self.eval(expression):
            if time.monotonic() > end:
                raise TimeoutError(f"not true within {seconds} s: {expression}")
            time.sleep(0.05)

    def center(self, selector):
        """Scrolls the first match of a CSS selector into view; (x, y) of its centre."""
        return self.eval("(() => { const e = document.querySelector(%s);"
                         " e.scrollIntoView({block: 'center', behavior: 'instant'});"
                         " const r = e.getBoundingClientRect();"
                         " return [r.x + r.width / 2, r.y + r.height / 2]; })()" % json.dumps(selector))

    def move(self, x, y):
        """Moves the mouse."""
        self._mouse([{"type": "pointerMove", "duration": 0, "x": round(x), "y": round(y)}])

    def click(self, x, y):
        """Moves the mouse and clicks."""
        self._mouse([{"type": "pointerMove", "duration": 0, "x": round(x), "y": round(y)},
                     {"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}])

    def screenshot(self, path, whole=False):
        """Writes a PNG of what is shown, or of the whole page."""
        options = {"format": "png"}
        if whole:
            size = self._devtools("Page.getLayoutMetrics")["cssContentSize"]
            options |= {"captureBeyondViewport": True, "clip": size | {"scale": 1}}
        picture = self._devtools("Page.captureScreenshot", **options)["data"]
        pathlib.Path(path).write_bytes(base64.b64decode(picture))

    def console_errors(self):
        """Errors of scripts, and loads that failed, since the last call."""
        lines = self._send("POST", "/se/log", {"type": "browser"})
        return [line["message"] for line in lines if line["level"] == "SEVERE"]

    def requests(self):
        """What the page has loaded besides itself; data: URIs do not count."""
        return self.eval("performance.getEntriesByType('resource').map(e => e.name)"
                         ".filter(name => !name.startsWith('data:'))")

    def _mouse(self, actions):
        self._send("POST", "/actions", {"actions": [{"type": "pointer", "id": "mouse",
                                                     "actions": actions}]})

    def _devtools(self, command, **parameters):
        return self._send("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def _port(self):
        end = time.monotonic() + 60
        while time.monotonic() < end and self._driver.poll() is None:
            with open(self._log.name) as log:
                found = re.search(r"successfully on port (\d+)", log.read())
            if found:
                return found[1]
            time.sleep(0.05)
        with open(self._log.name) as log:
            raise RuntimeError("chromedriver does not start: " + log.read())

    def _send(self, method, path, body=None):
        url = self._base + (f"/{self._session}" if self._session else "") + path
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # this machine, always
        try:
            with opener.open(request, timeout=180) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{path}: {json.load(error)['value']['message']}") from None
