"""Addresses that look like some and cannot be taken apart: refused by name, never a bug, and no password is shown."""

from pathlib import Path

import pytest

from driverctr import config as settings
from driverctr.errors import Code, DriverError
from driverctr.log import Log
from driverctr.modules.push import target_of
from driverctr.modules.web import Web
from tests.unit.remote_entries import KEY, QUICK, Pushed, node

BROKEN = (
    "http://h:99999/",
    "http://[1:2]/",
    "http://host:\u0661\u0662/",
    "https://u:planted[secret@h/",
    "http://user:planted\u2100secret@host/x",
)


def check_refusal(error: DriverError, code: Code) -> None:
    """Without the password, also in what a traceback would show."""
    assert error.code is code and error.remedy
    assert "planted" not in str(error) and error.__suppress_context__


@pytest.mark.parametrize("address", [*BROKEN, "http://h:0/"])
def test_an_address_that_cannot_be_taken_apart_is_no_setting(address: str, log: Log) -> None:
    with pytest.raises(DriverError, match="REMOTE_URL=") as error:
        settings.load({"REMOTE_URL": address})
    assert error.value.code is Code.BAD_SETTING and "planted" not in str(error.value)
    with pytest.raises(DriverError, match="--to=") as error:
        target_of(address, {}, log, lambda seconds: None)
    assert error.value.code is Code.BAD_SETTING and "planted" not in str(error.value)


@pytest.mark.parametrize("address", BROKEN)
def test_nor_is_it_one_for_who_connects(address: str, log: Log, tmp_path: Path) -> None:
    pushed = Pushed(tmp_path, log)
    with pytest.raises(DriverError, match="not valid") as error:
        node(address, pushed.public, log, QUICK).find(KEY)
    check_refusal(error.value, Code.REMOTE_FAILED)


@pytest.mark.parametrize("proxy", ["http://u:planted[secret@h:9", "http://u:planted\u2100secret@h:9"])
def test_a_proxy_that_is_no_address_is_told_without_its_password(proxy: str, log: Log, tmp_path: Path) -> None:
    pushed = Pushed(tmp_path, log)
    with pytest.raises(DriverError) as error:
        node("http://modules.example/", pushed.public, log, QUICK, HTTP_PROXY=proxy).find(KEY)
    check_refusal(error.value, Code.REMOTE_FAILED)


def test_what_can_be_taken_apart_is_an_address(log: Log) -> None:
    for address in ("http://[::1]:80/x", "https://h", "http://name:p%5Bw@h:65535/driverctr"):
        assert settings.load({"REMOTE_URL": address}).remote_url == address.rstrip("/")
        assert Web(address, {}, QUICK, log, lambda seconds: None).base.partition("@")[2] == ""
