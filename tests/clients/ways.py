"""The clients that exist, and the ways in which each sends an image: a table for tests/serving/test_clients.py.

Each way asks /person-reid about the left part of a picture, so its answer tells whether image and box have arrived.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import shutil
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import httpx
import pytest
import requests

HERE: Final = Path(__file__).parent
BOX: Final = (0, 0, 30, 48)
BOX_TEXT: Final = ",".join(map(str, BOX))
QUERY: Final = f"?bbox={BOX_TEXT}"
PNG: Final = {"Content-Type": "image/png"}
JSON: Final = {"Content-Type": "application/json"}
CHUNK: Final = 1000  # bytes


@dataclass(frozen=True)
class Picture:
    """The picture to send. url: of the route. path, base64_path: the file, and its base64 as a file."""

    url: str
    path: Path
    base64_path: Path

    @property
    def data(self) -> bytes:
        return self.path.read_bytes()

    @property
    def base64(self) -> str:
        return self.base64_path.read_text(encoding="ascii")

    @property
    def fields(self) -> dict[str, Any]:
        """The whole request as JSON has it."""
        return {"image_base64": self.base64, "bbox": list(BOX)}

    @property
    def texts(self) -> dict[str, str]:
        """The same as a form has it."""
        return {"image_base64": self.base64, "bbox": BOX_TEXT}

    @property
    def json(self) -> bytes:
        return json.dumps(self.fields).encode()

    def chunks(self) -> Iterator[bytes]:
        for start in range(0, len(self.data), CHUNK):
            yield self.data[start : start + CHUNK]


Ask = Callable[[Picture], str]


@dataclass(frozen=True)
class Way:
    """A client, and how it sends: `ask` returns the answer's text. needs: the program, where it is one."""

    client: str
    name: str
    ask: Ask
    needs: str = ""

    def skip_without(self) -> None:
        """Skip the test, with a reason, where the client is not installed."""
        if self.needs and not shutil.which(self.needs):
            pytest.skip(f"{self.client} is not installed here")


def _filled(options: dict[str, Any], picture: Picture) -> dict[str, Any]:
    """Keyword arguments of a client: those that are functions are made of the picture."""
    return {name: option(picture) if callable(option) else option for name, option in options.items()}


def _httpx(query: str = "", **options: Any) -> Ask:
    return lambda picture: httpx.post(picture.url + query, timeout=30, **_filled(options, picture)).text


async def _async_chunks(picture: Picture) -> AsyncIterator[bytes]:
    for chunk in picture.chunks():
        yield chunk


def _httpx_async(picture: Picture) -> str:
    async def ask() -> str:
        async with httpx.AsyncClient(timeout=30) as client:
            return (await client.post(picture.url + QUERY, content=_async_chunks(picture), headers=PNG)).text

    return asyncio.run(ask())


def _requests(query: str = "", **options: Any) -> Ask:
    return lambda picture: requests.post(picture.url + query, timeout=30, **_filled(options, picture)).text


def _aiohttp(query: str = "", **options: Any) -> Ask:
    async def ask(picture: Picture) -> str:
        sent = _filled(options, picture)
        async with aiohttp.ClientSession() as session, session.post(picture.url + query, **sent) as response:
            return await response.text()

    return lambda picture: asyncio.run(ask(picture))


def _aiohttp_form(picture: Picture) -> aiohttp.FormData:
    form = aiohttp.FormData()
    form.add_field("image", picture.data, filename="camera.png", content_type="image/png")
    form.add_field("bbox", BOX_TEXT)
    return form


def _urllib(data: Callable[[Picture], bytes], query: str = "", headers: dict[str, str] | None = None) -> Ask:
    def ask(picture: Picture) -> str:
        request = urllib.request.Request(picture.url + query, data(picture), headers or {})
        with urllib.request.urlopen(request, timeout=30) as response:
            return str(response.read().decode())

    return ask


def _http_client(picture: Picture) -> str:
    url = urllib.parse.urlsplit(picture.url)
    connection = http.client.HTTPConnection(url.netloc, timeout=30)
    connection.request("POST", url.path + QUERY, picture.chunks(), PNG, encode_chunked=True)
    text = connection.getresponse().read().decode()
    connection.close()
    return text


def _run(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def _program(*command: str, query: str = "") -> Ask:
    """{file}, {base64_file}, {json}: of the picture."""

    def ask(picture: Picture) -> str:
        names = {
            "{file}": str(picture.path),
            "{base64_file}": str(picture.base64_path),
            "{json}": picture.json.decode(),
        }
        filled = list(command)
        for name, value in names.items():
            filled = [part.replace(name, value) for part in filled]
        return _run([*filled, picture.url + query])

    return ask


def _curl(*options: str, query: str = "") -> Ask:
    return _program("curl", "-sS", "--max-time", "30", *options, query=query)


def _wget(*options: str, query: str = "") -> Ask:
    return _program("wget", "-q", "-O", "-", "--timeout=30", "--tries=1", *options, query=query)


def _node(way: str) -> Ask:
    return lambda picture: _run(["node", str(HERE / "ask.mjs"), picture.url, str(picture.path), way])


def _java(way: str) -> Ask:
    def ask(picture: Picture) -> str:
        command = ["java", "-XX:TieredStopAtLevel=1", str(HERE / "Ask.java")]
        return _run([*command, picture.url, str(picture.path), str(picture.base64_path), way])

    return ask


def _socket(head: str, body: Callable[[Picture], bytes], query: str = "") -> Ask:
    """What a client sends byte by byte. {path}, {host}, {length}: filled in."""

    def ask(picture: Picture) -> str:
        url = urllib.parse.urlsplit(picture.url)
        content = body(picture)
        filled = head.replace("{path}", url.path + query).replace("{host}", url.netloc)
        request = filled.replace("{length}", str(len(content))).replace("\n", "\r\n").encode() + content
        with socket.create_connection((url.hostname, url.port), timeout=30) as connection:
            connection.sendall(request)
            response = http.client.HTTPResponse(connection, method="POST")
            response.begin()
            return response.read().decode()

    return ask


def _form(boundary: str, *parts: tuple[str, bytes | None], end: str = "\r\n") -> Callable[[Picture], bytes]:
    """A multipart body: the headers and the content of each part; None is the picture."""

    def body(picture: Picture) -> bytes:
        content = b"".join(
            f"--{boundary}\r\n{headers}\r\n\r\n".encode() + (picture.data if data is None else data) + b"\r\n"
            for headers, data in parts
        )
        return content + f"--{boundary}--{end}".encode()

    return body


def _chunked(body: Callable[[Picture], bytes]) -> Callable[[Picture], bytes]:
    def chunked(picture: Picture) -> bytes:
        content = body(picture)
        pieces = (content[start : start + CHUNK] for start in range(0, len(content), CHUNK))
        return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"

    return chunked


# As .NET's MultipartFormDataContent, Go's mime/multipart and Rust's reqwest write them.
_DOTNET: Final = """\
POST {path} HTTP/1.1
Host: {host}
Content-Type: multipart/form-data; boundary="a 1b2c-3d4e"
Content-Length: {length}
Connection: close

"""
_DOTNET_FORM: Final = _form(
    "a 1b2c-3d4e",
    ("Content-Type: text/plain; charset=utf-8\r\nContent-Disposition: form-data; name=bbox", BOX_TEXT.encode()),
    (
        "Content-Type: image/png\r\nContent-Disposition: form-data; name=image; "
        "filename=\"=?utf-8?B?dMO8ci5wbmc=?=\"; filename*=utf-8''t%C3%BCr.png",
        None,
    ),
)
_DOTNET_NAMELESS: Final = _form(
    "a 1b2c-3d4e",
    ("Content-Disposition: form-data; name=bbox", BOX_TEXT.encode()),
    ("Content-Disposition: form-data; name=image", None),
)
_GO: Final = """\
POST {path} HTTP/1.1
Host: {host}
User-Agent: Go-http-client/1.1
Transfer-Encoding: chunked
Content-Type: multipart/form-data; boundary=5f8e0b6d
Accept-Encoding: gzip
Connection: close

"""
_GO_FORM: Final = _form(
    "5f8e0b6d",
    (
        'Content-Disposition: form-data; name="image"; filename="front \\"door\\".png"\r\nContent-Type: '
        "application/octet-stream",
        None,
    ),
    ('Content-Disposition: form-data; name="bbox"', BOX_TEXT.encode()),
)
_RUST: Final = """\
POST {path} HTTP/1.1
content-type: image/png
accept: */*
host: {host}
transfer-encoding: chunked
connection: close

"""
_PHP: Final = """\
POST {path} HTTP/1.0
Host: {host}
Content-Type: application/x-www-form-urlencoded
Content-Length: {length}

"""


WAYS: Final = (
    Way("httpx", "json", _httpx(json=lambda picture: picture.fields)),
    Way("httpx", "file", _httpx(files=lambda picture: {"image": picture.path.open("rb")}, data={"bbox": BOX_TEXT})),
    Way("httpx", "file, box as a list", _httpx(files=lambda picture: {"image": picture.data}, data={"bbox": [*BOX]})),
    Way("httpx", "form", _httpx(data=lambda picture: picture.texts)),
    Way("httpx", "bytes", _httpx(content=lambda picture: picture.data, headers=PNG, params={"bbox": BOX_TEXT})),
    Way("httpx", "bytes without a type", _httpx(content=lambda picture: picture.data, query=QUERY)),
    Way("httpx", "async, chunks", _httpx_async),
    Way("requests", "json", _requests(json=lambda picture: picture.fields)),
    Way("requests", "file", _requests(files=lambda picture: {"image": picture.path.open("rb")}, query=QUERY)),
    Way(
        "requests",
        "bytes as a file",
        _requests(files=lambda picture: {"image": picture.data}, data={"bbox": BOX_TEXT}),
    ),
    Way(
        "requests",
        "file without a name",
        _requests(files=lambda picture: {"image": (None, picture.data), "bbox": (None, BOX_TEXT)}),
    ),
    Way("requests", "form", _requests(data=lambda picture: picture.texts)),
    Way("requests", "bytes without a type", _requests(data=lambda picture: picture.data, query=QUERY)),
    Way("requests", "chunks", _requests(data=lambda picture: picture.chunks(), headers=PNG, query=QUERY)),
    Way("aiohttp", "json", _aiohttp(json=lambda picture: picture.fields)),
    Way("aiohttp", "form with a file", _aiohttp(data=_aiohttp_form)),
    Way("aiohttp", "form", _aiohttp(data=lambda picture: picture.texts)),
    Way("aiohttp", "bytes, octet-stream by itself", _aiohttp(data=lambda picture: picture.data, query=QUERY)),
    Way("aiohttp", "open file", _aiohttp(data=lambda picture: picture.path.open("rb"), query=QUERY)),
    Way("aiohttp", "chunks", _aiohttp(data=_async_chunks, headers=PNG, query=QUERY)),
    Way("aiohttp", "Expect: 100-continue", _aiohttp(json=lambda picture: picture.fields, expect100=True)),
    Way("aiohttp", "compressed", _aiohttp(data=lambda picture: picture.json, headers=JSON, compress="gzip")),
    Way("urllib", "json", _urllib(lambda picture: picture.json, headers=JSON)),
    Way("urllib", "form", _urllib(lambda picture: urllib.parse.urlencode(picture.texts).encode())),
    Way("urllib", "bytes, urlencoded by itself", _urllib(lambda picture: picture.data, QUERY)),
    Way("http.client", "chunks", _http_client),
    Way("curl", "-F", _curl("-F", "image=@{file}", "-F", f"bbox={BOX_TEXT}"), "curl"),
    Way("curl", "-F of another name", _curl("-F", "file=@{file}", query=QUERY), "curl"),
    Way("curl", "-F of base64", _curl("-F", "image_base64=<{base64_file}", "-F", f"bbox=[{BOX_TEXT}]"), "curl"),
    Way("curl", "-d JSON", _curl("-H", "Content-Type: application/json", "-d", "{json}"), "curl"),
    Way("curl", "-d JSON, urlencoded by itself", _curl("-d", "{json}"), "curl"),
    Way("curl", "--json", _curl("--json", "{json}"), "curl"),
    Way(
        "curl", "--data-binary", _curl("-H", "Content-Type: image/png", "--data-binary", "@{file}", query=QUERY), "curl"
    ),
    Way("curl", "--data-binary, urlencoded by itself", _curl("--data-binary", "@{file}", query=QUERY), "curl"),
    Way(
        "curl",
        "--data-binary without a type",
        _curl("-H", "Content-Type:", "--data-binary", "@{file}", query=QUERY),
        "curl",
    ),
    Way(
        "curl",
        "--data-urlencode",
        _curl("--data-urlencode", "image_base64@{base64_file}", "-d", f"bbox={BOX_TEXT}"),
        "curl",
    ),
    Way("curl", "--http2: an upgrade to h2c", _curl("--http2", "--json", "{json}"), "curl"),
    Way("curl", "--http2 with a file", _curl("--http2", "-F", "image=@{file}", "-F", f"bbox={BOX_TEXT}"), "curl"),
    Way("curl", "HTTP/1.0", _curl("--http1.0", "-F", "image=@{file}", query=QUERY), "curl"),
    Way("curl", "chunked", _curl("-H", "Transfer-Encoding: chunked", "--json", "{json}"), "curl"),
    Way("curl", "Expect: 100-continue", _curl("-H", "Expect: 100-continue", "--json", "{json}"), "curl"),
    Way("wget", "--post-file, urlencoded by itself", _wget("--post-file={file}", query=QUERY), "wget"),
    Way("wget", "--post-file", _wget("--header=Content-Type: image/png", "--post-file={file}", query=QUERY), "wget"),
    Way("wget", "--post-data", _wget("--header=Content-Type: application/json", "--post-data={json}"), "wget"),
    *(
        Way("Node", way, _node(way), "node")
        for way in ("json", "form", "urlencoded", "blob", "bytes", "stream", "http.request, piped")
    ),
    *(Way("Java", way, _java(way), "javac") for way in ("json", "json over HTTP/1.1", "file", "stream", "form")),
    Way(".NET", "MultipartFormDataContent", _socket(_DOTNET, _DOTNET_FORM)),
    Way(".NET", "a file without a name or type", _socket(_DOTNET, _DOTNET_NAMELESS)),
    Way("Go", "mime/multipart, chunked", _socket(_GO, _chunked(_GO_FORM))),
    Way("Rust", "reqwest, chunked", _socket(_RUST, _chunked(lambda picture: picture.data), QUERY)),
    Way("PHP", "HTTP/1.0, urlencoded", _socket(_PHP, lambda picture: urllib.parse.urlencode(picture.texts).encode())),
)
