"""Downloads that can be trusted: by https, checked against a pinned sha256, and never half there."""

from __future__ import annotations

import logging
import socket
import urllib.request
from pathlib import Path
from threading import Thread

import httpx
from tqdm import tqdm

from importing.errors import WeightsMissing
from importing.weights import sha256_of

logger = logging.getLogger(__name__)

REACH_SECONDS = 3.0
# What a request for the rest of a file is answered with where there is none, or another part comes.
_OTHER_RANGE = (httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE, httpx.codes.PARTIAL_CONTENT)
# Once a host answers, a slow line is given time; a read that yields nothing for this long has failed.
_TIMEOUT = httpx.Timeout(20.0)


class Downloader:
    """Fetches files over HTTP, and asks a host that could not be reached only once."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], str | None] = {}

    def fetch_pinned(self, url: str, file: Path, *, sha256: str, size: int | None) -> None:
        """Download `url` to `file` unless it is there already; `sha256` and `size` (bytes, if known) say what it is.

        A download that broke off lies beside it as `<file>.part` and is taken up where it ended; once more from its
        start where that does not give the file. Raises WeightsMissing where the host cannot be reached, the server
        refuses, or the bytes are others than expected (which are deleted).
        """
        part = _part(file)
        for there in (file, part):  # a part may be whole: an import can be ended just before it gets its name
            if there.is_file() and sha256_of(there) == sha256:
                there.replace(file)
                return
        resumed = self._transfer(url, part, size=size, resume=True)
        if resumed and sha256_of(part) != sha256:
            logger.info("What had been kept of %s was not its beginning: the download starts anew.", url)
            self._transfer(url, part, size=size, resume=False)
        found = sha256_of(part)
        if found != sha256:
            part.unlink()
            raise WeightsMissing(
                f"{url} is not the file it was: sha256 {found} instead of {sha256}. It was deleted; "
                "download the weights yourself and name them with --source"
            )
        part.replace(file)

    def fetch(self, url: str, file: Path) -> None:
        """Download `url` to `file`, whatever it holds. Raises WeightsMissing as `fetch_pinned` does."""
        part = _part(file)
        self._transfer(url, part, size=None, resume=False)
        part.replace(file)

    def _transfer(self, url: str, part: Path, *, size: int | None, resume: bool) -> bool:
        """Fetch what `part` has not yet; whether that was taken up where it ended, and did not start anew."""
        have = part.stat().st_size if resume and part.is_file() else 0
        if size is not None and have >= size:
            have = 0
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        hooks = {"request": [self._reach]}  # called for every redirection, too
        try:
            with (
                httpx.Client(timeout=_TIMEOUT, follow_redirects=True, event_hooks=hooks) as client,
                client.stream("GET", url, headers=headers) as response,
            ):
                resumed = response.status_code == httpx.codes.PARTIAL_CONTENT and _starts_at(response, have)
                if resumed or response.status_code == httpx.codes.OK:
                    if have and not resumed:
                        logger.info("The server of %s does not resume: the download starts anew.", url)
                    _receive(response, part, offset=have if resumed else 0, size=size)
                    return resumed and have > 0
                if not have or response.status_code not in _OTHER_RANGE:
                    raise WeightsMissing(f"{url} was answered with {response.status_code} {response.reason_phrase}")
        except (httpx.RequestError, httpx.InvalidURL) as error:
            raise WeightsMissing(f"{url} failed ({_reason(error)}): run the import again to take it up") from error
        total = response.headers.get("Content-Range", "").rpartition("/")[2]
        logger.info("%s has %s bytes, and %d were kept: the download starts anew.", url, total or "unknown", have)
        return self._transfer(url, part, size=size, resume=False)

    def _reach(self, request: httpx.Request) -> None:
        """Raise WeightsMissing at once where the request's host is known to be out of reach, or turns out to be."""
        scheme, host = request.url.scheme, request.url.host
        if urllib.request.getproxies().get(scheme) and not urllib.request.proxy_bypass(host):
            return  # the proxy speaks for the host
        address = (host, request.url.port or (443 if scheme == "https" else 80))
        if address not in self._known:
            self._known[address] = _connection_problem(address)
        problem = self._known[address]
        if problem is not None:
            raise WeightsMissing(f"{host} cannot be reached ({problem})")


def _connection_problem(address: tuple[str, int]) -> str | None:
    """Why a host cannot be reached, found out within REACH_SECONDS, or None where it can.

    In a thread because neither name resolution nor a host with many dead addresses heeds a connect timeout.
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
    # disable=None: no bar where standard error is a log instead of a terminal
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
