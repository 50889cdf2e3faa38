"""Runs a trial server for `make run`: starts `bentoml serve`, waits until it is ready and prints example requests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path

from settings import SERVICE_NAME, get_settings
from settings.address import AddressUnusable, try_address
from tools import exposure

_READY_TIMEOUT_S = 120.0


def main() -> int:
    """Serve. Returns the server's exit code, or 1 if it can't listen or does not become ready."""
    environment = {**os.environ, "ENRICHMENT_ALLOW_UNTRAINED": "true"}
    settings = get_settings()
    try:  # another server on this port would seem to be the one that was started
        try_address(str(settings.server.host), settings.server.port)
    except AddressUnusable as error:
        print(f"{SERVICE_NAME} can't start: {error}", file=sys.stderr)
        return 1
    url = exposure.local_url(settings)
    command = [sys.executable, "-m", "bentoml", "serve", "service:EnrichmentLight"]
    began = time.monotonic()
    server = subprocess.Popen(command, env=environment)
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda received, _: server.send_signal(received))
    if _wait(server, url):
        print(_hints(url, time.monotonic() - began), flush=True)
        if (exposed := exposure.warning(settings)) is not None:
            print(exposed, flush=True)
    elif server.poll() is None:
        print(f"the service did not become ready within {_READY_TIMEOUT_S:g} s; see the log above", file=sys.stderr)
        server.terminate()
        server.wait()
        return 1
    return server.wait()


def _wait(server: subprocess.Popen[bytes], url: str) -> bool:
    deadline = time.monotonic() + _READY_TIMEOUT_S
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy would not find this machine's port
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with direct.open(f"{url}/readyz", timeout=2):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    return False


def _hints(url: str, seconds: float) -> str:
    picture = _picture()
    return f"""
================================================================================
ai-enrichment-light answers on {url} ({seconds:.0f} s after its start). Try it:

  curl {url}/health
  curl -F image=@{picture} {url}/pose-analyze
  curl -F image=@{picture} {url}/threat-detect
  curl -F image=@{picture} -F bbox=40,390,250,910 {url}/person-reid
  curl -F image=@{picture} {url}/pet-classify
  curl -F image=@{picture} {url}/depth-estimate
  curl {url}/metrics

or open {url} in a browser. Ctrl+C ends it.
================================================================================"""


def _picture() -> str:
    """A photograph for the examples: ultralytics ships one."""
    package = find_spec("ultralytics")
    if package is None or package.origin is None:
        return "PICTURE.jpg"
    path = Path(package.origin).parent / "assets" / "bus.jpg"
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


if __name__ == "__main__":
    sys.exit(main())
