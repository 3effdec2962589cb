"""A big file over a connection that breaks: what came is kept, what failed is told in one line."""

import errno
import hashlib
import shutil
from collections import namedtuple
from pathlib import Path

import download
import pytest
from driver_files import BuildError

from tests.unit.runfiles import Server, broken_off, refuse, serving, whole

CONTENT = bytes(range(256)) * 40
URL = "/535.309.01/NVIDIA.run"
Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """These servers are on this machine."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def fetch(server: Server, to: Path) -> bytes:
    return download.fetch(server.url + URL, to, pause=lambda seconds: None).read_bytes()


def test_what_broke_off_goes_on_where_it_stopped(tmp_path: Path) -> None:
    with serving(Server(CONTENT, broken_off(3000), broken_off(3000), whole)) as server:
        assert fetch(server, tmp_path) == CONTENT
    assert server.ranges == ["", "bytes=3000-", "bytes=6000-"]
    assert [path.name for path in tmp_path.iterdir()] == ["NVIDIA.run"]


def test_what_an_earlier_run_left_is_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "NVIDIA.run.part").write_bytes(CONTENT[:500])
    (tmp_path / "NVIDIA.run.part.tag").write_text('"one"')
    with serving(Server(CONTENT, whole)) as server:
        assert fetch(server, tmp_path) == CONTENT
    assert server.ranges == ["bytes=500-"]


def test_another_file_by_the_same_name_begins_anew(tmp_path: Path) -> None:
    def other(handler: object) -> None:
        server.tag, server.content = '"two"', CONTENT[::-1]
        whole(handler)  # type: ignore[arg-type]  # any handler will do

    with serving(Server(CONTENT, broken_off(3000), other)) as server:
        assert fetch(server, tmp_path) == CONTENT[::-1]
    assert server.ranges == ["", "bytes=3000-"]


def test_without_a_name_for_the_content_nothing_is_gone_on_with(tmp_path: Path) -> None:
    with serving(Server(CONTENT, broken_off(3000), whole)) as server:
        server.tag = ""
        assert fetch(server, tmp_path) == CONTENT
    assert server.ranges == ["", ""]


def test_more_than_the_server_has_is_thrown_away(tmp_path: Path) -> None:
    (tmp_path / "NVIDIA.run.part").write_bytes(CONTENT)
    (tmp_path / "NVIDIA.run.part.tag").write_text('"one"')
    with serving(Server(CONTENT, whole)) as server:
        assert fetch(server, tmp_path) == CONTENT
    assert server.ranges == [f"bytes={len(CONTENT)}-", ""]


@pytest.mark.parametrize("status", [429, 502, 503])
def test_a_busy_server_is_asked_again(tmp_path: Path, status: int) -> None:
    with serving(Server(CONTENT, refuse(status), refuse(status), whole)) as server:
        assert fetch(server, tmp_path) == CONTENT


@pytest.mark.parametrize(("status", "words"), [(404, "404 Not Found"), (403, "403 Forbidden")])
def test_what_is_not_there_is_not_asked_for_again(tmp_path: Path, status: int, words: str) -> None:
    with serving(Server(CONTENT, refuse(status))) as server, pytest.raises(BuildError) as caught:
        fetch(server, tmp_path)
    assert len(server.ranges) == 1
    assert str(caught.value).startswith(f"{server.url}{URL}: the server says {words}. Give a BASE_URL")


def test_pauses_double_and_end(tmp_path: Path) -> None:
    pauses: list[float] = []
    with serving(Server(CONTENT, refuse(503))) as server, pytest.raises(BuildError, match=r"after 5 attempts: .* 503"):
        download.fetch(server.url + URL, tmp_path, pause=pauses.append)
    assert pauses == [2, 4, 8, 16]


def test_nobody_there_is_said_with_what_to_look_at(tmp_path: Path) -> None:
    with serving(Server(b"", whole)) as server:
        url = server.url
    with pytest.raises(BuildError, match=r"cannot be fetched, after 5 attempts: .*refused.*HTTPS_PROXY"):
        download.fetch(url + URL, tmp_path, pause=lambda seconds: None)


def test_what_is_no_address_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"unknown url type.*Give BASE_URL as https://HOST/PATH"):
        download.fetch("us.example/tesla/NVIDIA.run", tmp_path, pause=lambda seconds: None)


def test_a_disk_too_small_is_known_before_a_byte_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 100))
    with serving(Server(CONTENT, whole)) as server, pytest.raises(BuildError, match=r"is full: .*TMPDIR"):
        fetch(server, tmp_path)
    assert not (tmp_path / "NVIDIA.run.part").exists()


def test_a_disk_that_fills_up_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with serving(Server(CONTENT, whole)) as server, pytest.raises(BuildError, match="full: No space left on device"):
        fetch(server, tmp_path)
    assert len(server.ranges) == 1


def test_the_servers_own_sum_is_taken_where_it_has_one() -> None:
    told = hashlib.sha256(CONTENT).hexdigest()
    with serving(Server(CONTENT, whole)) as server:
        assert download.published_sum(server.url + URL) == ""
        server.files["sum"] = f"{told}  NVIDIA.run\n".encode()
        assert download.published_sum(server.url + URL) == told
        server.files["sum"] = b"<html>not here</html>"
        assert download.published_sum(server.url + URL) == ""


def test_another_sum_is_refused_with_both(tmp_path: Path) -> None:
    file = tmp_path / "NVIDIA.run"
    file.write_bytes(CONTENT)
    told = hashlib.sha256(CONTENT).hexdigest()
    download.check_sum(file, told.upper(), "RUNFILE_SHA256")
    with pytest.raises(BuildError, match=f"has SHA-256 {told}, RUNFILE_SHA256 says {'0' * 64}"):
        download.check_sum(file, "0" * 64, "RUNFILE_SHA256")
