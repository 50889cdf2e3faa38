"""Downloads weight files: checked against a pinned sha256, resumable, and never left incomplete under their name."""

from __future__ import annotations

import logging
import socket
import urllib.request
from pathlib import Path
from threading import Thread

import httpx

from importing.errors import WeightsMissing
from models.store import sha256_of

logger = logging.getLogger(__name__)

REACH_SECONDS = 3.0
# Answers to a range request that can't be resumed: no such range, or another part of the file.
_OTHER_RANGE = (httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE, httpx.codes.PARTIAL_CONTENT)
# Seconds for one connect, read or write. A slow download continues as long as bytes arrive.
_TIMEOUT = httpx.Timeout(20.0)


class Downloader:
    """Fetches files over HTTP, and tries an unreachable host only once."""

    def __init__(self) -> None:
        self._unreachable: dict[tuple[str, int], str] = {}

    def fetch_pinned(self, url: str, file: Path, *, sha256: str, size: int | None) -> None:
        """Download `url` to `file`, unless a file with this sha256 is there already. size: bytes, if known.

        An interrupted download stays as `<file>.part` and is resumed. If the resumed file has the wrong checksum, it is
        downloaded again from the start. Raises WeightsMissing if the host is unreachable, the server refuses, or the
        checksum or size is wrong; a wrong file is deleted.
        """
        part = _part(file)
        for there in (file, part):  # a part may be complete if the import ended just before the rename
            if there.is_file() and sha256_of(there) == sha256:
                there.replace(file)
                return
        resumed = self._transfer(url, part, size=size, resume=True)
        if resumed and sha256_of(part) != sha256:
            logger.info("The partial download of %s does not belong to this file. The download starts again.", url)
            self._transfer(url, part, size=size, resume=False)
        found = sha256_of(part)
        if found != sha256:
            part.unlink()
            raise WeightsMissing(
                f"{url} is not the expected file: its sha256 is {found}, not {sha256}. The download was deleted; "
                "download the weights yourself and name them with --source"
            )
        part.replace(file)

    def fetch(self, url: str, file: Path) -> None:
        """Download `url` to `file` without a checksum. Raises WeightsMissing if the host or the server fails."""
        part = _part(file)
        self._transfer(url, part, size=None, resume=False)
        part.replace(file)

    def _transfer(self, url: str, part: Path, *, size: int | None, resume: bool) -> bool:
        """Fetch the bytes that `part` lacks. Return whether the download was resumed and not started again."""
        have = part.stat().st_size if resume and part.is_file() else 0
        if size is not None and have >= size:
            have = 0
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        hooks = {"request": [self._reach]}  # redirects included
        try:
            with (
                httpx.Client(timeout=_TIMEOUT, follow_redirects=True, event_hooks=hooks) as client,
                client.stream("GET", url, headers=headers) as response,
            ):
                resumed = response.status_code == httpx.codes.PARTIAL_CONTENT and _starts_at(response, have)
                if resumed or response.status_code == httpx.codes.OK:
                    if have and not resumed:
                        logger.info("The server of %s can't resume a download. The download starts again.", url)
                    _receive(response, part, offset=have if resumed else 0, size=size)
                    return resumed and have > 0
                if not have or response.status_code not in _OTHER_RANGE:
                    raise WeightsMissing(f"{url} was answered with {response.status_code} {response.reason_phrase}")
        except (httpx.RequestError, httpx.InvalidURL) as error:
            raise WeightsMissing(f"{url} failed ({_reason(error)}): run the import again to take it up") from error
        total = response.headers.get("Content-Range", "").rpartition("/")[2]
        logger.info(
            "The partial download of %s has %d bytes, the file %s. The download starts again.",
            url,
            have,
            total or "an unknown number",
        )
        return self._transfer(url, part, size=size, resume=False)

    def _reach(self, request: httpx.Request) -> None:
        """Raise WeightsMissing if the request's host can't be reached. Tried before each request, until it fails."""
        scheme, host = request.url.scheme, request.url.host
        if urllib.request.getproxies().get(scheme) and not urllib.request.proxy_bypass(host):
            return  # only the proxy can tell if the host can be reached
        address = (host, request.url.port or (443 if scheme == "https" else 80))
        problem = self._unreachable.get(address) or _connection_problem(address)
        if problem is not None:
            self._unreachable[address] = problem
            raise WeightsMissing(f"{host} cannot be reached ({problem})")


def _connection_problem(address: tuple[str, int]) -> str | None:
    """Return why a host can't be reached within REACH_SECONDS, or None if it can.

    A thread enforces the limit: a connect timeout bounds neither name resolution nor the number of dead addresses.
    """
    outcome: list[str | None] = []

    def connect() -> None:
        try:
            socket.create_connection(address, timeout=REACH_SECONDS).close()
            outcome.append(None)
        except OSError as error:
            outcome.append(error.strerror or str(error))

    thread = Thread(target=connect, daemon=True)
    thread.start()
    thread.join(REACH_SECONDS)
    return outcome[0] if outcome else f"no answer within {REACH_SECONDS:.0f} s"


def _receive(response: httpx.Response, part: Path, *, offset: int, size: int | None) -> None:
    part.parent.mkdir(parents=True, exist_ok=True)
    received = offset
    # disable=None: no progress bar unless standard error is a terminal
    from tqdm import tqdm  # the images leave it out, and have to say so in a sentence (importing/workshop.py)

    bar = tqdm(total=size, initial=offset, unit="B", unit_scale=True, desc=part.stem, disable=None)
    with bar, part.open("r+b" if offset else "wb") as stream:
        stream.seek(offset)
        for chunk in response.iter_bytes():
            received += len(chunk)
            if size is not None and received > size:
                break
            stream.write(chunk)
            bar.update(len(chunk))
        stream.truncate()
    if size is not None and received != size:
        part.unlink()
        length = f"longer than {size}" if received > size else f"only {received} of {size}"
        raise WeightsMissing(f"{response.url} is not the file it was: it is {length} bytes")


def _starts_at(response: httpx.Response, offset: int) -> bool:
    content_range: str = response.headers.get("Content-Range", "")
    return content_range.startswith(f"bytes {offset}-")


def _part(file: Path) -> Path:
    return file.with_name(file.name + ".part")


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
