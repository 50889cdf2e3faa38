from __future__ import annotations

import hashlib
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from importing import download
from importing.download import Downloader
from importing.errors import WeightsMissing
from tests.importing.hub import serving

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def fetch(url: str, file: Path, downloader: Downloader | None = None, *, sha256: str = SHA256) -> None:
    (downloader or Downloader()).fetch_pinned(url, file, sha256=sha256, size=len(CONTENT))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_fetches_into_a_new_folder_and_leaves_no_part(tmp_path: Path) -> None:
    file = tmp_path / "weights" / "best.pt"
    with serving({"/best.pt": CONTENT}) as hub:
        fetch(f"{hub.url}/best.pt", file)
    assert file.read_bytes() == CONTENT
    assert [path.name for path in file.parent.iterdir()] == ["best.pt"]


def test_follows_redirections(tmp_path: Path) -> None:
    with serving({"/best.pt": CONTENT}) as hub:
        fetch(f"{hub.url}/moved/best.pt", tmp_path / "best.pt")
    assert (tmp_path / "best.pt").read_bytes() == CONTENT


def test_a_file_that_is_there_is_not_asked_for_again(tmp_path: Path) -> None:
    (tmp_path / "best.pt").write_bytes(CONTENT)
    with serving({"/best.pt": CONTENT}) as hub:
        fetch(f"{hub.url}/best.pt", tmp_path / "best.pt")
        assert hub.asked == []


def test_a_download_that_broke_off_is_taken_up_where_it_ended(tmp_path: Path) -> None:
    file = tmp_path / "best.pt"
    with serving({"/best.pt": CONTENT}, cut_at=300_000) as hub, pytest.raises(WeightsMissing, match="to take it up"):
        fetch(f"{hub.url}/best.pt", file)
    assert not file.exists()
    assert (tmp_path / "best.pt.part").stat().st_size == 300_000
    with serving({"/best.pt": CONTENT}) as hub:
        fetch(f"{hub.url}/best.pt", file)
        assert hub.asked == [("/best.pt", "bytes=300000-")]
    assert file.read_bytes() == CONTENT


def test_a_server_that_ignores_the_range_is_read_from_the_start(tmp_path: Path) -> None:
    (tmp_path / "best.pt.part").write_bytes(CONTENT[:1000])
    with serving({"/best.pt": CONTENT}, ranges=False) as hub:
        fetch(f"{hub.url}/best.pt", tmp_path / "best.pt")
    assert (tmp_path / "best.pt").read_bytes() == CONTENT


def test_other_bytes_are_deleted_and_both_checksums_named(tmp_path: Path) -> None:
    other = CONTENT[::-1]
    with (
        serving({"/best.pt": other}) as hub,
        pytest.raises(WeightsMissing, match=f"{hashlib.sha256(other).hexdigest()}, not {SHA256}"),
    ):
        fetch(f"{hub.url}/best.pt", tmp_path / "best.pt")
    assert list(tmp_path.iterdir()) == []


def test_a_rotten_part_is_thrown_away_and_the_download_starts_anew_once(tmp_path: Path) -> None:
    (tmp_path / "best.pt.part").write_bytes(b"rotten" * 100)
    with serving({"/best.pt": CONTENT}) as hub:
        fetch(f"{hub.url}/best.pt", tmp_path / "best.pt")
        assert hub.asked == [("/best.pt", "bytes=600-"), ("/best.pt", None)]
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [CONTENT]


@pytest.mark.parametrize("size", [len(CONTENT), None], ids=["known size", "unknown size"])
def test_a_part_that_is_whole_is_not_asked_for_again(tmp_path: Path, size: int | None) -> None:
    (tmp_path / "best.pt.part").write_bytes(CONTENT)
    with serving({"/best.pt": CONTENT}) as hub:
        Downloader().fetch_pinned(f"{hub.url}/best.pt", tmp_path / "best.pt", sha256=SHA256, size=size)
        assert hub.asked == []
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [CONTENT]


@pytest.mark.parametrize("kept", [CONTENT[::-1], CONTENT + b"more", CONTENT * 2], ids=["others", "more", "twice"])
@pytest.mark.parametrize("ranges", [True, False])
def test_a_part_of_which_the_server_has_no_rest_starts_anew_once(tmp_path: Path, kept: bytes, ranges: bool) -> None:
    (tmp_path / "best.pt.part").write_bytes(kept)
    with serving({"/best.pt": CONTENT}, ranges=ranges) as hub:
        Downloader().fetch_pinned(f"{hub.url}/best.pt", tmp_path / "best.pt", sha256=SHA256, size=None)
        assert hub.asked == [("/best.pt", f"bytes={len(kept)}-"), ("/best.pt", None)][: 2 if ranges else 1]
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [CONTENT]


def test_a_server_that_begins_elsewhere_than_asked_is_read_from_the_start(tmp_path: Path) -> None:
    (tmp_path / "best.pt.part").write_bytes(CONTENT[:1000])
    with serving({"/best.pt": CONTENT}, shift=7) as hub:
        fetch(f"{hub.url}/best.pt", tmp_path / "best.pt")
        assert hub.asked == [("/best.pt", "bytes=1000-"), ("/best.pt", None)]
    assert (tmp_path / "best.pt").read_bytes() == CONTENT


def test_a_server_that_has_other_bytes_is_given_up_after_the_second_time(tmp_path: Path) -> None:
    (tmp_path / "best.pt.part").write_bytes(CONTENT[:1000])
    with serving({"/best.pt": CONTENT[::-1]}) as hub:
        with pytest.raises(WeightsMissing, match="is not the expected file"):
            Downloader().fetch_pinned(f"{hub.url}/best.pt", tmp_path / "best.pt", sha256=SHA256, size=None)
        assert len(hub.asked) == 2
    assert list(tmp_path.iterdir()) == []


def test_an_empty_file_of_the_server_is_named(tmp_path: Path) -> None:
    (tmp_path / "best.pt.part").write_bytes(CONTENT)
    with serving({"/best.pt": b""}) as hub, pytest.raises(WeightsMissing, match="416 Requested Range Not Satisfiable"):
        Downloader().fetch_pinned(f"{hub.url}/best.pt", tmp_path / "best.pt", sha256="0" * 64, size=None)


def test_a_longer_file_is_given_up_at_the_expected_size(tmp_path: Path) -> None:
    with (
        serving({"/best.pt": CONTENT * 2}) as hub,
        pytest.raises(WeightsMissing, match="it is longer than 1048576 bytes"),
    ):
        fetch(f"{hub.url}/best.pt", tmp_path / "best.pt")
    assert list(tmp_path.iterdir()) == []


def test_not_found_is_named_with_the_url(tmp_path: Path) -> None:
    with serving({}) as hub, pytest.raises(WeightsMissing, match=r"/best\.pt was answered with 404 Not Found"):
        fetch(f"{hub.url}/best.pt", tmp_path / "best.pt")


def test_a_host_that_refused_is_not_asked_a_second_time(tmp_path: Path) -> None:
    port, downloader = free_port(), Downloader()
    with pytest.raises(WeightsMissing, match=r"127\.0\.0\.1 cannot be reached \(Connection refused\)"):
        fetch(f"http://127.0.0.1:{port}/best.pt", tmp_path / "best.pt", downloader)
    with serving({"/best.pt": CONTENT}, port=port) as hub:
        with pytest.raises(WeightsMissing, match="cannot be reached"):
            fetch(f"{hub.url}/best.pt", tmp_path / "best.pt", downloader)
        assert hub.asked == []


def test_a_host_that_does_not_answer_is_given_up_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "REACH_SECONDS", 0.2)

    def resolve(*_: object, **__: object) -> None:
        time.sleep(3)
        raise OSError("no such host")

    monkeypatch.setattr(socket, "create_connection", resolve)
    started = time.perf_counter()
    with pytest.raises(WeightsMissing, match="no answer within"):
        fetch("http://hub.invalid/best.pt", tmp_path / "best.pt")
    assert time.perf_counter() - started < 2


def test_names_that_hang_after_the_first_file_are_given_up_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve, hangs = socket.getaddrinfo, threading.Event()

    def resolve_slowly(*arguments: Any, **options: Any) -> Any:
        if hangs.is_set():
            time.sleep(3)
        return resolve(*arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve_slowly)
    downloader = Downloader()
    with serving({"/best.pt": CONTENT}) as hub:
        fetch(f"{hub.url}/best.pt", tmp_path / "first.pt", downloader)
        hangs.set()
        monkeypatch.setattr(download, "REACH_SECONDS", 0.2)
        started = time.perf_counter()
        for name in ("second.pt", "third.pt"):
            with pytest.raises(WeightsMissing, match="cannot be reached \\(no answer within"):
                fetch(f"{hub.url}/best.pt", tmp_path / name, downloader)
        assert time.perf_counter() - started < 2


def test_a_malformed_url_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match="http://:bad"):
        Downloader().fetch("http://:bad", tmp_path / "best.pt")


def test_an_unpinned_download_replaces_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "best.pt").write_bytes(b"old")
    with serving({"/best.pt": CONTENT}) as hub:
        Downloader().fetch(f"{hub.url}/best.pt", tmp_path / "best.pt")
    assert (tmp_path / "best.pt").read_bytes() == CONTENT
