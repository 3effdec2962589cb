"""Calling dnf: a fake dnf that is really executed; what real ones say is in tests/image/test_dnf.py."""

import re
import shlex
from io import StringIO
from pathlib import Path

import pytest

from driverctr.distros import HeaderPackages, Repositories, Rung
from driverctr.distros.rhel import Rhel
from driverctr.errors import Code, DriverError
from driverctr.log import Log
from driverctr.packages import Sources
from driverctr.packages.dnf import Dnf
from driverctr.packages.dnfwords import complaints, may_pass, refusal
from driverctr.run import Result, Runner
from tests.unit.conftest import FakeBin, make_tree

RELEASE = "5.14.0-427.13.1.el9_4.x86_64"
PACKAGE = f"kernel-devel-{RELEASE}"
WANTED = HeaderPackages(PACKAGE, re.compile(r"(?!)"))
LADDER = (
    Rung("9.4", ("rhel-9-for-x86_64-baseos-eus-rpms",)),
    Rung("9.4", ("rhel-9-for-x86_64-baseos-rpms",)),
    Rung("9", ("rhel-9-for-x86_64-baseos-rpms",)),
)
SECTION = "[{name}]\nname={name}\nbaseurl=https://packages.example/{name}/$releasever\nenabled={enabled}\n"
GET = f"""
for word; do case "$word" in --destdir=*) : > "${{word#--destdir=}}/{PACKAGE}.rpm" ;; esac; done
"""
"""A dnf that has the package."""

SIGNED = """
case "$*" in *--checksig*) ;; *) exit 0 ;; esac
echo "x.rpm:"; echo "    Header V3 RSA/SHA256 Signature, key ID fd431d51: OK"; echo "    Payload SHA256 digest: OK"
"""
NO_PACKAGE = f"No package {PACKAGE} available.\nExiting due to strict setting.\nError: No package {PACKAGE} available."
NOT_FOUND = """Errors during downloading metadata for repository 'eus':
  - Status code: 404 for https://packages.example/9.4/repodata/repomd.xml (IP: 192.0.2.1)
Error: Failed to download metadata for repo 'eus': Cannot download repomd.xml: All mirrors were tried
Ignoring repositories: eus
"""
NO_HOST = NOT_FOUND.replace("Status code: 404 for", "Curl error (6): Couldn't resolve host name for")


def section(name: str, enabled: int = 1) -> str:
    return SECTION.format(name=name, enabled=enabled)


def say(words: str, status: int = 1) -> str:
    """A script that says words on standard error and ends."""
    return f"printf '%s\\n' {shlex.quote(words)} >&2; exit {status}"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with a user's repository file and the distribution's key."""
    make_tree(
        tmp_path / "root",
        {"etc/yum.repos.d/own.repo": section("own"), "etc/pki/rpm-gpg/RPM-GPG-KEY-redhat-release": "key"},
    )
    return tmp_path / "root"


@pytest.fixture
def pauses() -> list[float]:
    """How long was waited between attempts."""
    return []


@pytest.fixture
def dnf(tmp_path: Path, root: Path, runner: Runner, log: Log, pauses: list[float], fake_bin: FakeBin) -> Dnf:
    """dnf of a root of its own, beside tools that do well."""
    fake_bin.add("dnf", GET)
    fake_bin.add("rpmkeys", SIGNED)
    fake_bin.add("bash", f"/bin/mkdir -p usr/src/kernels/{RELEASE}")
    sources = Sources(Rhel.certificates, folder=tmp_path / "packages", root=root)
    return Dnf(runner, tmp_path / "scratch", pauses.append, log, sources, Repositories(LADDER))


def replaced(dnf: Dnf, **sources: object) -> Dnf:
    """The same dnf with other sources."""
    given = {name: getattr(dnf.sources, name) for name in Sources.__dataclass_fields__} | sources
    return Dnf(dnf.runner, dnf.scratch, dnf.pause, dnf.log, Sources(**given), dnf.repositories)


def asked(fake_bin: FakeBin) -> list[list[str]]:
    """The words of each call of dnf."""
    return [call.split()[1:] for call in fake_bin.calls if call.startswith("dnf ")]


def said(log: Log) -> str:
    assert isinstance(log.stream, StringIO)
    return log.stream.getvalue()


def test_one_package_is_fetched_checked_and_unpacked(tmp_path: Path, dnf: Dnf, fake_bin: FakeBin) -> None:
    into = tmp_path / "into"
    assert dnf.fetch(WANTED, into) == (PACKAGE,)
    package = f"{dnf.scratch}/packages/{PACKAGE}.rpm"
    assert asked(fake_bin)[0][-3:] == ["download", f"--destdir={dnf.scratch}/packages", PACKAGE]
    check = f"rpmkeys --dbpath {dnf.scratch}/keyring --checksig --verbose --define _pkgverify_level signature"
    others = [call for call in fake_bin.calls if not call.startswith("dnf ")]
    assert others[0] == f"rpmkeys --dbpath {dnf.scratch}/keyring --import {dnf.sources.root}/etc/pki/rpm-gpg/" + (
        "RPM-GPG-KEY-redhat-release"
    )
    assert others[1].startswith(check) and others[1].endswith(package)
    assert "rpm2cpio" in others[2] and others[2].endswith(f"unpack {package}")
    link = into / "lib/modules" / RELEASE / "build"
    assert link.resolve() == (into / "usr/src/kernels" / RELEASE).resolve() and not link.readlink().is_absolute()


def test_all_state_is_ours_and_no_plugin_but_download_runs(tmp_path: Path, dnf: Dnf, fake_bin: FakeBin) -> None:
    dnf.fetch(WANTED, tmp_path / "into")
    scratch = dnf.scratch
    words = asked(fake_bin)[0]
    assert f"--installroot={scratch}/root" in words and "--releasever=9.4" in words
    places = {"cachedir": "cache", "persistdir": "state", "logdir": "log", "reposdir": "repositories"}
    assert {f"--setopt={name}={scratch}/{place}" for name, place in places.items()} <= set(words)
    assert words.index("--disableplugin=*") < words.index("--enableplugin=download")
    assert words.index("--disablerepo=*") < words.index("--enablerepo=own")
    assert not any("sslcacert" in word for word in words)


def test_without_a_releasever_dnf_tells_it_itself(tmp_path: Path, dnf: Dnf, fake_bin: FakeBin) -> None:
    Dnf(dnf.runner, dnf.scratch, dnf.pause, dnf.log, dnf.sources, Repositories()).fetch(WANTED, tmp_path / "into")
    assert not [word for word in asked(fake_bin)[0] if word.startswith(("--installroot", "--releasever"))]


def test_the_ladder_is_climbed_and_each_rung_is_told(
    tmp_path: Path, root: Path, dnf: Dnf, fake_bin: FakeBin, log: Log, pauses: list[float]
) -> None:
    names = ("rhel-9-for-x86_64-baseos-eus-rpms", "rhel-9-for-x86_64-baseos-rpms")
    make_tree(root, {"run/secrets/redhat.repo": "".join(section(name, 0) for name in names)})
    fake_bin.add(
        "dnf",
        f"""case "$*" in
            *--releasever=9.4*eus-rpms*) {say(NOT_FOUND)} ;;
            *--releasever=9.4*) {say(NO_PACKAGE)} ;;
        esac
        {GET}""",
    )
    assert dnf.fetch(WANTED, tmp_path / "into") == (PACKAGE,)
    enabled = [
        [word for word in words if word.startswith(("--enablerepo", "--releasever"))] for words in asked(fake_bin)
    ]
    assert enabled == [
        ["--releasever=9.4", f"--enablerepo={names[0]}", "--enablerepo=own"],
        ["--releasever=9.4", f"--enablerepo={names[1]}", "--enablerepo=own"],
        ["--releasever=9", f"--enablerepo={names[1]}", "--enablerepo=own"],
    ]
    assert f"releasever 9.4 of {names[0]}, own: Status code: 404 for https://packages.example/9.4/" in said(log)
    assert f"releasever 9.4 of {names[1]}, own: No package {PACKAGE} available" in said(log)
    assert pauses == []


def test_rungs_whose_names_no_file_has_are_asked_once(tmp_path: Path, dnf: Dnf, fake_bin: FakeBin) -> None:
    fake_bin.add("dnf", say(NO_PACKAGE))
    with pytest.raises(DriverError) as raised:
        dnf.fetch(WANTED, tmp_path / "into")
    assert raised.value.code is Code.HEADERS_MISSING
    assert raised.value.message == f"releasever 9.4 of own, releasever 9 of own: No package {PACKAGE} available"
    assert len(asked(fake_bin)) == 2


def test_what_may_pass_is_tried_again_from_the_first_rung_on(
    tmp_path: Path, dnf: Dnf, fake_bin: FakeBin, pauses: list[float]
) -> None:
    fake_bin.add("dnf", say(NO_HOST + NO_PACKAGE))
    with pytest.raises(DriverError) as raised:
        dnf.fetch(WANTED, tmp_path / "into")
    assert raised.value.code is Code.PACKAGES_FAILED
    assert "Curl error (6): Couldn't resolve host name for https://packages.example/9.4/" in raised.value.message
    assert len(asked(fake_bin)) == 6 and len(pauses) == 2 and pauses[1] > pauses[0]


def test_a_dnf_that_is_not_there_is_asked_for_once(
    tmp_path: Path, dnf: Dnf, fake_bin: FakeBin, pauses: list[float]
) -> None:
    (fake_bin.folder / "dnf").unlink()
    with pytest.raises(DriverError, match="`dnf` was not found"):
        dnf.fetch(WANTED, tmp_path / "into")
    assert pauses == []


@pytest.mark.parametrize(
    ("words", "code", "told", "remedy", "passing"),
    [
        (NO_PACKAGE, Code.HEADERS_MISSING, f"No package {PACKAGE} available", "PACKAGES_DIR", False),
        (NOT_FOUND + NO_PACKAGE, Code.PACKAGES_FAILED, "Status code: 404 for https", "/etc/yum.repos.d", False),
        (NOT_FOUND.replace("404", "403"), Code.PACKAGES_FAILED, "Status code: 403", "entitlement", False),
        (NOT_FOUND.replace("404", "503"), Code.PACKAGES_FAILED, "Status code: 503", "/etc/yum.repos.d", True),
        (NO_HOST, Code.PACKAGES_FAILED, "Curl error (6)", "proxy", True),
        (
            NO_HOST.replace(
                "(6): Couldn't resolve host name", "(60): SSL peer certificate or SSH remote key was not OK"
            ),
            Code.PACKAGES_FAILED,
            "Curl error (60)",
            "/etc/pki/ca-trust/source/anchors",
            False,
        ),
        (
            "Error: Failed to download metadata for repo 'good': repomd.xml GPG signature verification error: Bad GPG "
            "signature\n" + NO_PACKAGE,
            Code.PACKAGES_UNTRUSTED,
            "repomd.xml GPG signature verification error: Bad GPG signature",
            "gpgkey=",
            False,
        ),
        (
            "[MIRROR] x.rpm: Status code: 404 for http://packages.example/x.rpm (IP: 192.0.2.1)\n"
            "[FAILED] x.rpm: No more mirrors to try - All mirrors were already tried without success",
            Code.PACKAGES_FAILED,
            "[MIRROR] x.rpm: Status code: 404",
            "not of one piece",
            True,
        ),
        (
            "[MIRROR] x.rpm: Downloading successful, but checksum doesn't match. Calculated: 31c5(sha256)  Expected: "
            "4b60(sha256) ",
            Code.PACKAGES_FAILED,
            "checksum doesn't match. Calculated: 31c5(sha256)",
            "not of one piece",
            True,
        ),
        (
            "No such command: download. Please use /usr/bin/dnf --help",
            Code.PACKAGES_FAILED,
            "No such command: download",
            "dnf-plugins-core",
            False,
        ),
        ("Error: Cannot find a valid baseurl for repo: own", Code.PACKAGES_FAILED, "valid baseurl", "yum.repos", False),
        ("warning: something\nKilled", Code.PACKAGES_FAILED, "warning: something; Killed", "/etc/yum.repos.d", False),
    ],
)
def test_dnfs_words(words: str, code: Code, told: str, remedy: str, passing: bool) -> None:
    read = complaints(Result(("dnf",), 1, "Good 9      0.0  B/s |   0  B     00:00\n", words, 0.1))
    error = refusal(read)
    assert (error.code, may_pass(read)) == (code, passing)
    assert told in error.message and remedy in error.remedy
    assert not re.search(r"Ignoring|B/s|No package .* No|metadata.* No package", error.message)


def test_names_and_passwords_of_a_server_are_not_told() -> None:
    words = NOT_FOUND.replace("https://", "https://me:word@")
    read = complaints(Result(("dnf",), 1, "", words, 0.1))
    assert "Status code: 404 for https://...@packages.example/9.4/" in read and "word" not in read


def test_nothing_to_ask_is_told_with_why(tmp_path: Path, root: Path, dnf: Dnf, fake_bin: FakeBin) -> None:
    (root / "etc/yum.repos.d/own.repo").write_text(section("own", 0))
    with pytest.raises(DriverError) as raised:
        replaced(dnf, defaults=False, reason="the host is another").fetch(WANTED, tmp_path / "into")
    assert raised.value.message == "no repository is enabled, and the image's own are left out: the host is another"
    assert "entitlement" in raised.value.remedy and asked(fake_bin) == []


def test_proxies_are_handed_on_in_small_letters_too(tmp_path: Path, dnf: Dnf, fake_bin: FakeBin, log: Log) -> None:
    fake_bin.add("dnf", f'echo "$http_proxy $https_proxy" > {tmp_path}/seen' + GET)
    environment = {
        **fake_bin.environment,
        "HTTP_PROXY": "http://one",
        "HTTPS_PROXY": "http://two",
        "https_proxy": "http://own",
    }
    runner = Runner(environment, log)
    Dnf(runner, dnf.scratch, dnf.pause, log, dnf.sources, dnf.repositories).fetch(WANTED, tmp_path / "into")
    assert (tmp_path / "seen").read_text() == "http://one http://own\n"


def test_keys_are_those_the_repositories_name(
    tmp_path: Path, root: Path, dnf: Dnf, fake_bin: FakeBin, log: Log
) -> None:
    own = section("own") + "gpgkey=file:///keys/$releasever\n  https://me:pass@packages.example/KEY-$driverctr\n"
    make_tree(root, {"keys/9.4": "", "etc/dnf/vars/driverctr": "two\n"})
    (root / "etc/yum.repos.d/own.repo").write_text(own)
    fake_bin.add("curl", say("curl: (22) The requested URL returned error: 404", 22))
    fake_bin.add(
        "rpmkeys", f'case "$*" in *KEY-two) echo "error: import read failed(2)." >&2; exit 1 ;; esac\n{SIGNED}'
    )
    dnf.fetch(WANTED, tmp_path / "into")
    fetched = f"{dnf.scratch}/keys/1/KEY-two"
    imported = [call.split()[-1] for call in fake_bin.calls if "--import" in call]
    assert imported == [f"{root}/keys/9.4", fetched]
    assert f"--output {fetched} --config {dnf.scratch}/keys/1/address" in "".join(fake_bin.calls)
    address = dnf.scratch / "keys/1/address"
    assert address.read_text() == 'url = "https://me:pass@packages.example/KEY-two"\n'
    assert address.stat().st_mode & 0o777 == 0o600 and "pass" not in said(log) + "".join(fake_bin.calls)
    assert "KEY-two could not be fetched: curl: (22) The requested URL returned error: 404" in said(log)
    assert f"the key {fetched} is not taken: error: import read failed(2)." in said(log)


def test_gpgcheck_0_is_heard_only_where_no_repository_wants_more(
    tmp_path: Path, root: Path, dnf: Dnf, fake_bin: FakeBin, log: Log
) -> None:
    (root / "etc/yum.repos.d/own.repo").write_text(section("own") + "gpgcheck = False\n")
    dnf.fetch(WANTED, tmp_path / "one")
    assert not any("rpmkeys" in call for call in fake_bin.calls)
    assert "signatures are not checked: own has gpgcheck=0" in said(log)
    make_tree(root, {"etc/yum.repos.d/second.repo": section("second")})
    dnf.fetch(WANTED, tmp_path / "two")
    assert any("--checksig" in call for call in fake_bin.calls)


def test_an_unsigned_package_is_taken_from_the_repositories_with_gpgcheck_0_alone(
    tmp_path: Path, root: Path, dnf: Dnf, fake_bin: FakeBin, log: Log
) -> None:
    make_tree(root, {"etc/yum.repos.d/second.repo": section("second")})
    fake_bin.add("rpmkeys", "echo '/x.rpm: digests OK'")
    with pytest.raises(DriverError):
        dnf.fetch(WANTED, tmp_path / "into")
    (root / "etc/yum.repos.d/own.repo").write_text(section("own") + "gpgcheck=0\n")
    dnf.fetch(WANTED, tmp_path / "into")
    enabled = [word for word in asked(fake_bin)[-1] if word.startswith("--enablerepo")]
    assert enabled == ["--enablerepo=own"] and "signatures are not checked: own has" in said(log)
    fake_bin.add("dnf", 'case "$*" in *=second*) ;; *) exit 1 ;; esac' + GET)
    with pytest.raises(DriverError) as raised:
        dnf.fetch(WANTED, tmp_path / "into")
    assert raised.value.code is Code.PACKAGES_UNTRUSTED


def test_keys_of_one_name_from_two_servers_are_two(tmp_path: Path, root: Path, dnf: Dnf, fake_bin: FakeBin) -> None:
    keys = section("own") + "gpgkey=https://one.example/KEY https://two.example/KEY\n"
    (root / "etc/yum.repos.d/own.repo").write_text(keys)
    fake_bin.add("curl")
    dnf.fetch(WANTED, tmp_path / "into")
    imported = [call.split()[-1] for call in fake_bin.calls if "--import" in call]
    assert imported == [f"{dnf.scratch}/keys/0/KEY", f"{dnf.scratch}/keys/1/KEY"]


def test_a_name_with_a_star_stands_for_all_that_it_fits(
    tmp_path: Path, root: Path, dnf: Dnf, fake_bin: FakeBin
) -> None:
    make_tree(root, {"etc/yum.repos.d/ol.repo": section("ol9_baseos_latest") + section("ol9_UEKR7", 0)})
    named = Repositories((Rung("9", ("ol9_baseos_latest", "ol9_UEK*")),))
    Dnf(dnf.runner, dnf.scratch, dnf.pause, dnf.log, dnf.sources, named).fetch(WANTED, tmp_path / "into")
    assert {"--enablerepo=ol9_baseos_latest", "--enablerepo=ol9_UEKR7"} <= set(asked(fake_bin)[0])


def test_a_package_that_is_not_trusted_is_not_unpacked(tmp_path: Path, dnf: Dnf, fake_bin: FakeBin) -> None:
    fake_bin.add("rpmkeys", "echo '/x.rpm: digests OK'")
    with pytest.raises(DriverError) as raised:
        dnf.fetch(WANTED, tmp_path / "into")
    assert raised.value.code is Code.PACKAGES_UNTRUSTED
    assert not (tmp_path / "into").exists() and not any(call.startswith("bash") for call in fake_bin.calls)


def test_a_folder_needs_neither_dnf_nor_an_index(tmp_path: Path, dnf: Dnf, fake_bin: FakeBin) -> None:
    folder = dnf.sources.folder
    with pytest.raises(DriverError, match=f"there is no folder {folder}"):
        dnf.from_folder(WANTED, tmp_path / "into")
    make_tree(folder, {"RPM-GPG-KEY-own": "", "other.rpm": ""})
    with pytest.raises(DriverError, match=rf"{folder} has no {PACKAGE}\.rpm") as raised:
        dnf.from_folder(WANTED, tmp_path / "into")
    assert raised.value.code is Code.HEADERS_MISSING
    make_tree(folder, {f"Packages/k/{PACKAGE}.rpm": ""})
    assert dnf.from_folder(WANTED, tmp_path / "into") == (PACKAGE,)
    assert asked(fake_bin) == []
    imported = [Path(call.split()[-1]).name for call in fake_bin.calls if "--import" in call]
    assert imported == ["RPM-GPG-KEY-redhat-release", "RPM-GPG-KEY-own"]


def test_an_archive_is_asked_with_each_releasever(tmp_path: Path, dnf: Dnf, fake_bin: FakeBin) -> None:
    dnf = replaced(dnf, archive="https://vault.example/$releasever/BaseOS https://vault.example/$releasever/AppStream")
    fake_bin.add("dnf", say(NO_PACKAGE))
    with pytest.raises(DriverError) as raised:
        dnf.from_archive(WANTED, tmp_path / "into")
    assert (
        "releasever 9.4 of archive-1, archive-2, releasever 9 of archive-1, archive-2: No package"
        in raised.value.message
    )
    assert len(asked(fake_bin)) == 2 and f"--setopt=reposdir={dnf.scratch}/archive" in asked(fake_bin)[0]
    assert "baseurl=https://vault.example/$releasever/AppStream" in (dnf.scratch / "archive/archive-2.repo").read_text()


def test_an_archive_of_one_release_is_asked_once(tmp_path: Path, dnf: Dnf, fake_bin: FakeBin) -> None:
    fake_bin.add("dnf", say(NO_PACKAGE))
    with pytest.raises(DriverError):
        replaced(dnf, archive="https://vault.example/9.4").from_archive(WANTED, tmp_path / "into")
    assert len(asked(fake_bin)) == 1
