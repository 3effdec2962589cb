"""rpm's words of a package's signature, which repository files count, and what is trusted by TLS."""

import base64
from io import StringIO
from pathlib import Path

import pytest
import rpms

from driverctr.distros.rhel import Rhel
from driverctr.errors import Code, DriverError
from driverctr.log import Log
from driverctr.packages import Sources
from driverctr.packages.authorities import bundle
from driverctr.packages.repofiles import filled, gather
from driverctr.packages.rpm import Keyring, fault
from driverctr.run import Result, Runner
from tests.unit.conftest import FakeBin, make_tree
from tests.unit.test_dnf import section

PEM = "-----BEGIN CERTIFICATE-----\n{0}\n-----END CERTIFICATE-----\n"

SIGNED_414 = """\
    Header V3 RSA/SHA256 Signature, key ID fd431d51: OK
    Header SHA256 digest: OK
    Header SHA1 digest: OK (489efff35e604042709daf46fb78611fe90a75aa)
    Payload SHA256 digest: OK
    V3 RSA/SHA256 Signature, key ID fd431d51: OK
    MD5 digest: OK (b7b80dd6da1fae32d76e86d6673cfc00)
"""
"""rpm 4.14 (RHEL 8)."""

SIGNED_418 = """\
    Header V4 RSA/SHA512 Signature, key ID b61920f5: OK
    Header SHA256 digest: OK
    Header SHA1 digest: OK
    Payload SHA256 digest: OK
    MD5 digest: OK
"""
"""rpm 4.16 to 4.19 (RHEL 9, 10; seen with 4.18)."""

SIGNED_60 = """\
    Header OpenPGP V4 RSA/SHA256 signature, key fingerprint: 5d6b64cd9db7f2e1fd431d5199d622fd: OK
    Header SHA256 digest: OK
    Payload SHA256 digest: OK
"""
UNSIGNED = """\
    Header RSA signature: NOTFOUND
    Header DSA signature: NOTFOUND
    Header SHA256 digest: OK
    Header SHA1 digest: OK
    Payload SHA256 digest: OK
    RSA signature: NOTFOUND
    DSA signature: NOTFOUND
    MD5 digest: OK
"""
OTHER_KEY = """\
    Header V4 RSA/SHA512 Signature, key ID b61920f5: NOKEY
    Header DSA signature: NOTFOUND
    Header SHA256 digest: OK
    Payload SHA256 digest: OK
    RSA signature: NOTFOUND
"""
DIGESTS_ONLY = "    Header SHA256 digest: OK\n    Payload SHA256 digest: OK\n    MD5 digest: OK\n"


def result(lines: str, status: int, complaint: str = "") -> Result:
    return Result(("rpmkeys",), status, f"x.rpm:\n{lines}" if lines else "", complaint, 0.1)


@pytest.mark.parametrize("lines", [SIGNED_414, SIGNED_418, SIGNED_60])
def test_a_signed_package_is_taken(lines: str) -> None:
    assert fault(result(lines, 0)) == rpms.fault(f"x.rpm:\n{lines}", 0) == ""


@pytest.mark.parametrize(
    ("lines", "status", "why"),
    [
        (UNSIGNED, 1, "it is not signed"),
        (UNSIGNED, 0, "it is not signed"),
        (DIGESTS_ONLY, 0, "it is not signed"),
        (
            OTHER_KEY,
            1,
            "its key is not among those trusted here: Header V4 RSA/SHA512 Signature, key ID b61920f5: NOKEY",
        ),
        (OTHER_KEY + SIGNED_418, 0, "its key is not among those trusted here"),
        (SIGNED_418.replace("b61920f5: OK", "b61920f5: NOTTRUSTED"), 1, "key ID b61920f5: NOTTRUSTED"),
        (
            SIGNED_418.replace("b61920f5: OK", "b61920f5: BAD"),
            1,
            "Header V4 RSA/SHA512 Signature, key ID b61920f5: BAD",
        ),
        (
            SIGNED_418.replace("Payload SHA256 digest: OK", "Payload SHA256 digest: BAD (Expected 31c5 != 4b60)"),
            1,
            "Payload SHA256 digest: BAD (Expected 31c5 != 4b60)",
        ),
        (
            SIGNED_418.replace("    Payload SHA256 digest: OK\n", "    Payload SHA256 digest: NOTFOUND\n"),
            0,
            "its signature does not cover the files in it",
        ),
        (SIGNED_418, 1, "error: something"),
        ("", 1, "error: something"),
    ],
)
def test_anything_else_is_refused(lines: str, status: int, why: str) -> None:
    assert why in fault(result(lines, status, "error: something"))
    assert rpms.fault(f"x.rpm:\n{lines}", status) != "", "image builds refuse it too"


@pytest.mark.parametrize("word", ["BAD", "NOTTRUSTED"])
def test_a_line_that_is_not_good_counts_whatever_the_exit_status(word: str) -> None:
    lines = SIGNED_414.replace("    V3 RSA/SHA256 Signature, key ID fd431d51: OK", f"    V3 RSA Signature: {word}")
    assert fault(result(lines, 0)) == rpms.fault(lines, 0) == f"V3 RSA Signature: {word}"


def test_the_short_words_of_rpm_are_no_proof() -> None:
    """`digests OK`, exit status 0: what rpm 4.14 and later say of a package without a signature."""
    assert rpms.fault("x.rpm: digests OK\n", 0) != ""
    assert fault(Result(("rpmkeys",), 0, "x.rpm: digests OK\n", "", 0.1)) == "x.rpm: digests OK"


def test_a_refused_package_is_named_with_what_to_do(
    tmp_path: Path, runner: Runner, log: Log, fake_bin: FakeBin
) -> None:
    fake_bin.add("rpmkeys", "printf 'x.rpm:\\n    Header SHA256 digest: OK\\n'")
    with pytest.raises(DriverError) as raised:
        Keyring(runner, tmp_path / "keyring", log).check(tmp_path / "x.rpm")
    assert raised.value.code is Code.PACKAGES_UNTRUSTED
    assert raised.value.message == "x.rpm is refused: it is not signed" and "gpgkey=" in raised.value.remedy


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An image of RHEL with a user's repositories and an entitlement."""
    redhat = section("rhel-9-baseos-rpms") + (
        "sslcacert = /etc/rhsm/ca/redhat-uep.pem\nsslclientcert = /etc/pki/entitlement/12.pem\n"
    )
    make_tree(
        tmp_path / "root",
        {
            "etc/yum.repos.d/own.repo": section("own"),
            "etc/yum.repos.d/redhat.repo": "# written by subscription-manager, which has nothing\n",
            "etc/yum.repos.d/ubi.repo": section("ubi-9-baseos-rpms") + section("ubi-9-source", 0),
            "run/secrets/redhat.repo": redhat,
            "run/secrets/etc-pki-entitlement/12.pem": "",
            "usr/share/driverctr/default-repositories": "/etc/yum.repos.d/ubi.repo\n",
        },
    )
    return tmp_path / "root"


def sources(root: Path, *, defaults: bool = True) -> Sources:
    return Sources(Rhel.certificates, defaults=defaults, root=root)


def names(root: Path, folder: Path, log: Log, wanted: tuple[str, ...], *, defaults: bool = True) -> list[str]:
    return [one.name for one in gather(sources(root, defaults=defaults), folder, log).used(wanted)]


def test_named_repositories_and_the_users_own_are_used(tmp_path: Path, root: Path, log: Log) -> None:
    got = names(root, tmp_path / "repos", log, ("rhel-9-baseos-rpms", "rhel-9-appstream-rpms"))
    assert got == ["rhel-9-baseos-rpms", "own"]
    assert sorted(file.name for file in (tmp_path / "repos").iterdir()) == ["own.repo", "redhat.repo", "ubi.repo"]


def test_where_no_name_is_known_all_enabled_are_used(tmp_path: Path, root: Path, log: Log) -> None:
    got = names(root, tmp_path / "repos", log, ("baseos",))
    assert got == ["own", "ubi-9-baseos-rpms", "rhel-9-baseos-rpms"]


def test_the_images_own_files_are_left_out_where_they_are_not_wanted(tmp_path: Path, root: Path, log: Log) -> None:
    got = names(root, tmp_path / "without", log, (), defaults=False)
    assert got == ["own", "rhel-9-baseos-rpms"]
    assert not (tmp_path / "without/ubi.repo").exists()


def test_an_entitlement_is_used_where_the_container_has_it(tmp_path: Path, root: Path, log: Log) -> None:
    gather(sources(root), tmp_path / "one", log)
    text = (tmp_path / "one/redhat.repo").read_text()
    assert "sslclientcert = /run/secrets/etc-pki-entitlement/12.pem" in text
    assert "sslcacert = /etc/rhsm/ca/redhat-uep.pem" in text, "no /run/secrets/rhsm"
    make_tree(root, {"etc/pki/entitlement/12.pem": "", "run/secrets/rhsm/ca/redhat-uep.pem": ""})
    gather(sources(root), tmp_path / "two", log)
    text = (tmp_path / "two/redhat.repo").read_text()
    assert "sslclientcert = /etc/pki/entitlement/12.pem" in text
    assert "sslcacert = /run/secrets/rhsm/ca/redhat-uep.pem" in text
    (root / "etc/yum.repos.d/redhat.repo").write_text(section("registered"))
    assert "registered" in names(root, tmp_path / "three", log, ())


def test_a_file_that_is_none_is_said_and_left_out(tmp_path: Path, root: Path, log: Log) -> None:
    (root / "etc/yum.repos.d/own.repo").write_text("baseurl=x\n[own\n")
    assert "own" not in names(root, tmp_path / "repos", log, ())
    assert (
        isinstance(log.stream, StringIO) and "own.repo is left out, it is no repository file" in log.stream.getvalue()
    )
    assert not (tmp_path / "repos/own.repo").exists()


def test_variables_are_filled_in(tmp_path: Path) -> None:
    make_tree(tmp_path, {"etc/dnf/vars/contentdir": "pub/rocky\n", "etc/yum/vars/contentdir": "other\n"})
    text = "https://x/$contentdir/${releasever}/$releasever_major/$nothing"
    assert filled(text, "9.4", tmp_path) == "https://x/pub/rocky/9.4/9/$nothing"


def test_authorities_are_the_distributions_and_the_users(tmp_path: Path, log: Log) -> None:
    root, to = tmp_path / "root", tmp_path / "scratch/authorities.pem"
    make_tree(
        root,
        {
            "etc/pki/tls/certs/ca-bundle.crt": PEM.format("system").rstrip(),
            "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem": PEM.format("system"),
            "etc/pki/ca-trust/extracted/pem/directory-hash/a.pem": PEM.format("system"),
        },
    )
    assert bundle(sources(root), to, log) is None and not to.exists()
    make_tree(
        root,
        {
            "etc/pki/ca-trust/extracted/pem/operator.crt": PEM.format("operator").rstrip(),
            "etc/pki/ca-trust/source/anchors/..data/mine.pem": PEM.format("mine"),
            "etc/pki/ca-trust/source/anchors/notes": "none",
        },
    )
    der = root / "etc/pki/ca-trust/source/anchors/old.cer"
    der.write_bytes(b"\x30\x82" + bytes(100))
    assert bundle(sources(root), to, log) == to
    begins = [line for line in to.read_text().splitlines() if line.startswith("-----BEGIN")]
    assert begins == ["-----BEGIN CERTIFICATE-----"] * 4
    assert "".join(PEM.format(name) for name in ("system", "operator", "mine")) in to.read_text()
    coded = to.read_text().split("-----BEGIN CERTIFICATE-----\n")[-1].split("-----END")[0]
    assert base64.b64decode(coded) == der.read_bytes()
    assert isinstance(log.stream, StringIO) and "notes is left out, it is no certificate" in log.stream.getvalue()
