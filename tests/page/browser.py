"""Drives Chromium by its DevTools protocol, for tests/page.rs.

Usage: browser.py CHROMIUM PROFILE URL. Reads a JSON object from each line of stdin and answers with one on stdout:
  {"eval": SCRIPT}                                the value of SCRIPT
  {"wait": SCRIPT, "seconds": S}                  how long it took until SCRIPT was true, or null
  {"shot": FILE, "width": W, "height": H, "dark": BOOL, "scale": F}
  {"report": true}                                messages of the console, and all addresses that were requested
"""

import base64
import json
import pathlib
import subprocess
import sys
import time
import urllib.request

import websocket

chromium, profile, url = sys.argv[1:]
options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
           "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
           "--remote-debugging-port=0", "--remote-allow-origins=*", f"--user-data-dir={profile}", "about:blank"]
process = subprocess.Popen([chromium, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def until(found, seconds):
    """Polls until `found` returns something."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (result := found()) is not None:
            return result
        time.sleep(0.02)
    raise TimeoutError(found)


def port():
    file = pathlib.Path(profile) / "DevToolsActivePort"
    lines = file.read_text().split("\n") if file.exists() else []
    return int(lines[0]) if len(lines) > 1 else None


class Page:
    """One page, and what it has said and asked for."""

    def __init__(self, at):
        with urllib.request.urlopen(f"http://127.0.0.1:{at}/json/list") as answer:
            pages = [target for target in json.load(answer) if target["type"] == "page"]
        self.socket = websocket.create_connection(pages[0]["webSocketDebuggerUrl"], timeout=30)
        self.number, self.console, self.requests = 0, [], []
        for domain in ["Page", "Runtime", "Log", "Network"]:
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == self.number:
                if "error" in message:
                    raise RuntimeError(message["error"])
                return message["result"]
            self.note(message.get("method"), message.get("params", {}))

    def note(self, event, parameters):
        if event == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif event in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.console.append(json.dumps(parameters))

    def evaluate(self, script):
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(json.dumps(result["exceptionDetails"]))
        return result["result"].get("value")

    def wait(self, script, seconds):
        began = time.monotonic()
        try:
            until(lambda: self.evaluate(script) or None, seconds)
        except TimeoutError:
            return None
        return time.monotonic() - began

    def shot(self, file, width, height, dark, scale):
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale,
                  mobile=False)
        time.sleep(0.2)  # The browser lays the page out again.
        whole = height == 0
        image = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        pathlib.Path(file).write_bytes(base64.b64decode(image["data"]))
        return self.evaluate("document.documentElement.scrollWidth")


try:
    page = Page(until(port, 60))
    page.call("Page.navigate", url=url)
    until(lambda: page.evaluate("location.protocol !== 'about:' && document.readyState === 'complete'") or None, 60)
    for line in sys.stdin:
        command = json.loads(line)
        if "eval" in command:
            result = page.evaluate(command["eval"])
        elif "wait" in command:
            result = page.wait(command["wait"], command["seconds"])
        elif "shot" in command:
            result = page.shot(command.pop("shot"), **command)
        else:
            result = {"console": page.console, "requests": page.requests}
        print(json.dumps(result), flush=True)
finally:
    process.terminate()
    process.wait()
