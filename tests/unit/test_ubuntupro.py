"""Ubuntu Pro: attached for as long as something is fetched, detached whatever happens, the token nowhere to be read."""

import json
import os
import signal
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest

from driverctr import config as settings
from driverctr import distros
from driverctr.distros import HeaderPackages
from driverctr.errors import Code, DriverError, Stopped
from driverctr.facts.osrelease import OsRelease
from driverctr.log import Log
from driverctr.packages import ubuntupro
from driverctr.records import frozen
from driverctr.run import Runner
from driverctr.signals import Signals
from tests.unit.conftest import FakeBin
from tests.unit.test_processes import signals

__all__ = ["signals"]

TOKEN = "C1secretTOKEN"


def add_pro(fake_bin: FakeBin, attach: str = "exit 0", enable: str = "exit 0", detach: str = "exit 0") -> None:
    """pro that keeps what it read from the config file, and its mode."""
    read = f"/bin/cat $4 > {fake_bin.folder.parent}/read; /usr/bin/stat -c %a $4 > {fake_bin.folder.parent}/mode"
    fake_bin.add("pro", f"case $1 in attach) {read}; {attach};; enable) {enable};; detach) {detach};; esac")


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """A folder of ours."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def said(log: Log) -> str:
    assert isinstance(log.stream, StringIO)
    return log.stream.getvalue()


def verbs(fake_bin: FakeBin) -> list[str]:
    return [call.split()[1] for call in fake_bin.calls]


def test_the_service_is_there_for_the_block_and_the_token_in_a_file_only(
    runner: Runner, fake_bin: FakeBin, scratch: Path, log: Log, tmp_path: Path
) -> None:
    add_pro(fake_bin)
    with ubuntupro.attached(runner, TOKEN, "fips-updates", scratch):
        assert fake_bin.calls == [
            f"pro attach --no-auto-enable --attach-config {scratch}/attach.yaml",
            "pro enable --access-only --assume-yes fips-updates",
        ]
        assert not list(scratch.iterdir())
    assert fake_bin.calls[2:] == ["pro detach --assume-yes"]
    assert json.loads((tmp_path / "read").read_text()) == {"token": TOKEN, "enable_services": []}
    assert (tmp_path / "mode").read_text() == "600\n"
    assert TOKEN not in said(log) and TOKEN not in "".join(fake_bin.calls)


@pytest.mark.parametrize(
    ("ways", "words", "expected"),
    [
        ({"attach": f"echo 'Invalid token {TOKEN}' >&2; exit 1"}, "Invalid token [.]{3}", ["attach", "detach"]),
        ({"enable": "echo 'not entitled' >&2; exit 1"}, "fips-updates could not be enabled: not entitled", None),
    ],
)
def test_what_pro_says_is_in_the_error_and_nothing_stays_attached(
    runner: Runner,
    fake_bin: FakeBin,
    scratch: Path,
    ways: dict[str, str],
    words: str,
    expected: list[str] | None,
) -> None:
    add_pro(fake_bin, **ways)
    with (
        pytest.raises(DriverError, match=words) as failed,
        ubuntupro.attached(runner, TOKEN, "fips-updates", scratch),
    ):
        pytest.fail("the block must not run")
    assert failed.value.code is Code.PACKAGES_FAILED and TOKEN not in str(failed.value)
    assert verbs(fake_bin) == (expected or ["attach", "enable", "detach"]) and not list(scratch.iterdir())


def test_an_error_in_the_block_detaches(runner: Runner, fake_bin: FakeBin, scratch: Path) -> None:
    add_pro(fake_bin)
    with pytest.raises(ZeroDivisionError), ubuntupro.attached(runner, TOKEN, "fips-updates", scratch):
        print(1 // 0)
    assert verbs(fake_bin)[-1] == "detach"


def test_a_signal_in_the_block_detaches_before_it_ends_us(
    fake_bin: FakeBin, scratch: Path, log: Log, signals: Signals, tmp_path: Path
) -> None:
    add_pro(fake_bin, detach=f"/bin/sleep 0.2; echo done > {tmp_path}/detached")
    runner = Runner(fake_bin.environment, log, signals.held)
    with pytest.raises(Stopped), ubuntupro.attached(runner, TOKEN, "fips-updates", scratch):
        os.kill(os.getpid(), signal.SIGTERM)
    assert (tmp_path / "detached").exists()


def test_an_image_that_was_attached_stays_so(runner: Runner, fake_bin: FakeBin, scratch: Path) -> None:
    add_pro(fake_bin, attach="exit 2")
    with ubuntupro.attached(runner, TOKEN, "realtime-kernel", scratch):
        pass
    assert verbs(fake_bin) == ["attach", "enable"]


def test_a_failed_detach_is_said_and_no_failure(runner: Runner, fake_bin: FakeBin, scratch: Path, log: Log) -> None:
    add_pro(fake_bin, detach="echo 'network is down' >&2; exit 1")
    with ubuntupro.attached(runner, TOKEN, "fips-updates", scratch):
        pass
    assert "could not be detached from Ubuntu Pro: network is down" in said(log)


def test_an_image_without_pro_is_told_what_it_lacks(runner: Runner, scratch: Path) -> None:
    with (
        pytest.raises(DriverError, match="`pro` is not in this image") as failed,
        ubuntupro.attached(runner, TOKEN, "fips-updates", scratch),
    ):
        pytest.fail("the block must not run")
    assert "ubuntu-pro-client" in failed.value.remedy


@frozen
class Tool:
    """A package tool that has the headers while pro is attached."""

    fake_bin: FakeBin

    def fetch(self, wanted: HeaderPackages, into: Path) -> tuple[str, ...]:
        if not self.fake_bin.calls or verbs(self.fake_bin)[-1] == "detach":
            raise DriverError(Code.HEADERS_MISSING, "E: Unable to locate package")
        return (wanted.package,)

    def from_folder(self, wanted: HeaderPackages, into: Path) -> tuple[str, ...]:
        return ("of the folder",)

    def from_archive(self, wanted: HeaderPackages, into: Path) -> tuple[str, ...]:
        return ("of the archive",)


@pytest.fixture
def tool(runner: Runner, fake_bin: FakeBin, scratch: Path) -> ubuntupro.WithPro:
    """The tool for a FIPS kernel."""
    return ubuntupro.WithPro(Tool(fake_bin), runner, scratch, FIPS, "fips-updates", TOKEN)


FIPS = "5.15.0-1116-azure-fips"
WANTED = distros.of(OsRelease("ubuntu", "22.04")).header_packages(FIPS)


def test_only_what_asks_the_repositories_is_attached_and_only_meanwhile(
    tool: ubuntupro.WithPro, fake_bin: FakeBin, scratch: Path
) -> None:
    add_pro(fake_bin)
    assert tool.from_folder(WANTED, scratch) == ("of the folder",)
    assert tool.from_archive(WANTED, scratch) == ("of the archive",) and not fake_bin.calls
    assert tool.fetch(WANTED, scratch) == (WANTED.package,) and verbs(fake_bin) == ["attach", "enable", "detach"]


def test_without_a_token_what_is_needed_is_in_the_error(
    tool: ubuntupro.WithPro, fake_bin: FakeBin, scratch: Path
) -> None:
    add_pro(fake_bin)
    with pytest.raises(DriverError, match=rf"{FIPS} are in Ubuntu Pro.*: set UBUNTU_PRO_TOKEN; E: Unable") as failed:
        replace(tool, token="").fetch(WANTED, scratch)
    assert failed.value.code is Code.HEADERS_MISSING and not fake_bin.calls


def test_a_subscription_without_the_service_leaves_the_other_repositories(
    tool: ubuntupro.WithPro, fake_bin: FakeBin, scratch: Path, log: Log
) -> None:
    add_pro(fake_bin, enable="echo 'not entitled' >&2; exit 1")
    with pytest.raises(DriverError, match="could not be enabled: not entitled; E: Unable to locate package"):
        tool.fetch(WANTED, scratch)
    assert verbs(fake_bin) == ["attach", "enable", "detach"] and "not entitled" in said(log)


def test_no_representation_of_the_settings_shows_the_token() -> None:
    config = settings.load({"UBUNTU_PRO_TOKEN": TOKEN})
    assert config.ubuntu_pro_token == TOKEN == config.given["UBUNTU_PRO_TOKEN"]
    assert TOKEN not in repr(config) and TOKEN not in repr(config.given)
    assert TOKEN not in str(config.child_environment)
    with pytest.raises(DriverError) as refused:
        settings.load({"UBUNTU_PRO_TOKEN": f"{TOKEN} {TOKEN}"})
    assert TOKEN not in str(refused.value) and refused.value.code is Code.BAD_SETTING
