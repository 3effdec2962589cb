"""Our Dnf with real dnf and rpm, in containers without a network: local repositories, sound and each with one fault."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness import containers, rpmbase, rpmrepo
from harness.proc import run_bytes

pytestmark = pytest.mark.image

RELEASE = "5.14.0-427.13.1.el9_4.x86_64"
PACKAGE = f"kernel-devel-{RELEASE}"
HEADERS = f"usr/src/kernels/{RELEASE}"
LIMIT_S = 300
SOURCE = Path(__file__).parents[2] / "src"
BODY_BYTES = 1 << 20
"""A real kernel-devel has 20 MB; the index is to be small beside it as there."""

EXPIRED = "https://127.0.0.1:8444"
"""A server whose certificate is past its date."""

Ask = Callable[..., dict[str, Any]]


@dataclass(frozen=True)
class Served:
    """A folder of repositories, by name, and the key that signs the sound ones."""

    root: Path
    key: rpmrepo.Key


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """Return repositories: good, unsigned, other-key, gone (no package), damaged, changed (index and its digest)."""
    work = tmp_path_factory.mktemp("rpm")
    tree, root = work / "tree", work / "repositories"
    headers = tree / HEADERS
    (headers / "include/generated").mkdir(parents=True)
    (headers / "Makefile").write_text("all:\n")
    (headers / "include/generated/utsrelease.h").write_text(f'#define UTS_RELEASE "{RELEASE}"\n')
    (headers / "body").write_bytes(run_bytes(["head", "-c", str(BODY_BYTES), "/dev/urandom"], b""))
    key, other = rpmrepo.new_key(work / "key"), rpmrepo.new_key(work / "other", "somebody else")
    package = rpmrepo.Package("kernel-devel", "5.14.0", "427.13.1.el9_4", tree)
    for name, signer in (("good", key), ("unsigned", None), ("other-key", other)):
        rpmrepo.make(root / name, [package], signer)
    for name in ("gone", "damaged", "changed", "folder"):
        shutil.copytree(root / "good", root / name)
    (root / "gone" / package.file_name).unlink()
    flip(root / "damaged" / package.file_name)
    flip(next((root / "changed/repodata").glob("*-primary.xml.gz")))
    (root / "folder/Packages/k").mkdir(parents=True)
    (root / "folder" / package.file_name).rename(root / "folder/Packages/k" / package.file_name)
    for name in ("good", "folder"):
        shutil.copy2(key.public, root / name / "RPM-GPG-KEY-tests")
    shutil.copy2(other.public, root / "RPM-GPG-KEY-other")
    make_certificates(root)
    return Served(root, key)


def flip(file: Path) -> None:
    """Change a byte in the middle."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)


def make_certificates(root: Path) -> None:
    """An authority of one's own, and a certificate by it for the server."""
    script = r"""
        cd /out
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem
        openssl req -newkey rsa:2048 -nodes -subj /CN=server -addext subjectAltName=IP:127.0.0.1 \
            -keyout s.key -out s.csr
        openssl x509 -req -in s.csr -CA ca.pem -CAkey ca.key -days 2 -copy_extensions copy -out s.pem
        cat s.pem s.key >tls.pem
        openssl x509 -req -in s.csr -CA ca.pem -CAkey ca.key -days 0 -copy_extensions copy -out e.pem
        cat e.pem s.key >expired.pem
    """
    containers.output(rpmbase.image(), ["sh", "-euc", script], LIMIT_S, volumes=[f"{root}:/out"])


@pytest.fixture
def ask(served: Served) -> Ask:
    """Return a function that has our Dnf fetch in a container, and returns what it told."""

    def asked(
        repository: str = "good",
        *,
        way: str = "fetch",
        options: str = "",
        scheme: str = "http",
        files: Mapping[str, str] | None = None,
        **wish: Any,
    ) -> dict[str, Any]:
        address = {"http": "http://127.0.0.1:8000", "https": "https://127.0.0.1:8443", "expired": EXPIRED}[scheme]
        key = f"gpgkey={address}/good/RPM-GPG-KEY-tests" if "gpgkey" not in options else ""
        text = f"[test]\nname=test\nbaseurl={address}/{repository}\n{key}\n{options}\n"
        full = {
            "way": way,
            "files": {"/etc/yum.repos.d/test.repo": text, **(files or {})},
            "package": PACKAGE,
            "ladder": [["9.4", ["baseos-eus"]], ["9", ["baseos"]]],
            "defaults": True,
            "folder": "none",
            "archive": "",
            "serve": True,
            **wish,
        }
        program = "/tests/dnf_in_container.py"
        volumes = [f"{SOURCE}:/src:ro", f"{Path(__file__).parent}:/tests:ro", f"{served.root}:/repositories:ro"]
        said = containers.output(
            rpmbase.image(),
            ["python3", "-B", program, json.dumps(full)],
            LIMIT_S,
            volumes=volumes,
            environment=["PYTHONPATH=/src"],
        )
        told: dict[str, Any] = json.loads(said.splitlines()[-1])
        assert told["changed"] == [], "the state that is the image's own"
        return told

    return asked


def assert_whole(told: Mapping[str, Any]) -> None:
    """The headers are there, and the link by which they are found."""
    assert (told["code"], told["message"], told["names"]) == ("", "", [PACKAGE])
    names = ("Makefile", "body", "include/generated/utsrelease.h")
    assert told["unpacked"] == [f"lib/modules/{RELEASE}/build", *(f"{HEADERS}/{name}" for name in names)]


def test_headers_come_from_a_repository_and_little_else_is_fetched(ask: Ask, served: Served) -> None:
    told = ask()
    assert_whole(told)
    sizes = {path: (served.root / path.lstrip("/")).stat().st_size for path in told["served"]}
    fetched = sum(sizes[path] for path in told["served"])
    index = {path for path in sizes if "/repodata/" in path}
    package = [size for path, size in sizes.items() if path.endswith(".rpm")]
    assert len(package) == 1 and fetched <= 1.2 * (package[0] + sum(sizes[path] for path in index))


@pytest.mark.parametrize(
    ("repository", "options", "code", "words"),
    [
        ("unsigned", "", "packages-untrusted", "it is not signed"),
        ("other-key", "", "packages-untrusted", "its key is not among those trusted here: Header V4 RSA/SHA512 Sig"),
        ("gone", "", "packages-failed", "Status code: 404 for http://127.0.0.1:8000/gone/kernel-devel"),
        ("damaged", "", "packages-failed", "checksum doesn't match"),
        ("changed", "", "packages-failed", "checksum doesn't match"),
        ("nowhere", "", "packages-failed", "Status code: 404 for http://127.0.0.1:8000/nowhere/repodata/repomd.xml"),
        ("unsigned", "repo_gpgcheck=1", "packages-untrusted", "GPG signature is not available"),
        (
            "good",
            "repo_gpgcheck=1\ngpgkey=http://127.0.0.1:8000/RPM-GPG-KEY-other",
            "packages-untrusted",
            "repomd.xml GPG signature verification error: Bad GPG signature",
        ),
    ],
)
def test_each_fault_is_told_in_the_tools_own_words(
    ask: Ask, repository: str, options: str, code: str, words: str
) -> None:
    told = ask(repository, options=options)
    assert told["code"] == code and words in told["message"], told
    assert told["unpacked"] == [] and told["remedy"]


def test_what_does_not_answer_is_asked_again(ask: Ask) -> None:
    told = ask(serve=False, options="gpgkey=file:///nowhere")
    assert told["code"] == "packages-failed" and "Curl error (7): Couldn't connect to server" in told["message"]
    assert told["log"].count("attempt ") == 2


def test_a_package_that_is_gone_is_told_with_the_ladder(ask: Ask) -> None:
    told = ask(package="kernel-devel-5.14.0-1.el9.x86_64")
    words = "releasever 9.4 of test, releasever 9 of test: No package kernel-devel-5.14.0-1.el9.x86_64 available"
    assert (told["code"], told["message"]) == ("headers-missing", words)
    assert "attempt " not in told["log"]


def test_a_repository_that_does_not_answer_does_not_stand_in_the_way_of_another(ask: Ask) -> None:
    other = "[aaa]\nname=aaa\nbaseurl=http://127.0.0.1:1/\nskip_if_unavailable=0\n"
    assert_whole(ask(files={"/etc/yum.repos.d/aaa.repo": other}))


def test_a_signed_index_is_believed(ask: Ask) -> None:
    assert_whole(ask(options="repo_gpgcheck=1"))


def test_gpgcheck_0_is_heard_and_said(ask: Ask) -> None:
    told = ask("unsigned", options="gpgcheck=0")
    assert_whole(told)
    assert "signatures are not checked: test has gpgcheck=0" in told["log"]


@pytest.mark.parametrize("folder", ["good", "folder"])
def test_a_folder_serves_with_the_network_cut(ask: Ask, folder: str) -> None:
    assert_whole(ask(way="from_folder", folder=folder, serve=False))


@pytest.mark.parametrize(
    ("folder", "code", "words"),
    [
        ("unsigned", "packages-untrusted", "it is not signed"),
        ("other-key", "packages-untrusted", ": NOKEY"),
        ("damaged", "packages-untrusted", "BAD"),
        ("gone", "headers-missing", f"has no {PACKAGE}.rpm"),
        ("none", "headers-missing", "there is no folder /repositories/none"),
    ],
)
def test_a_folder_is_believed_no_more_than_a_server(
    ask: Ask, served: Served, folder: str, code: str, words: str
) -> None:
    key = {"/etc/pki/rpm-gpg/RPM-GPG-KEY-tests": served.key.public.read_text()}
    told = ask(way="from_folder", folder=folder, serve=False, files=key)
    assert told["code"] == code and words in told["message"], told
    assert told["unpacked"] == []


def test_an_archive_is_asked_by_release(ask: Ask, served: Served) -> None:
    key = {"/etc/pki/rpm-gpg/RPM-GPG-KEY-tests": served.key.public.read_text()}
    archive = "http://127.0.0.1:8000/$releasever http://127.0.0.1:8000/goo$driverctr"
    told = ask(way="from_archive", archive=archive, files={"/etc/dnf/vars/driverctr": "d\n", **key})
    assert_whole(told)


@pytest.mark.parametrize("place", ["/etc/pki/ca-trust/source/anchors", "/etc/pki/ca-trust/extracted/pem"])
def test_authorities_of_the_user_are_trusted(ask: Ask, served: Served, place: str) -> None:
    authority = {f"{place}/corporate.pem": (served.root / "ca.pem").read_text()}
    keys = {"/etc/pki/rpm-gpg/RPM-GPG-KEY-tests": served.key.public.read_text()}
    key = "gpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-tests"
    assert_whole(ask(scheme="https", options=key, files={**authority, **keys}))
    told = ask(scheme="https", options=key)
    assert told["code"] == "packages-failed" and "Curl error (60)" in told["message"]
    assert "/etc/pki/ca-trust/source/anchors" in told["remedy"] and "attempt " not in told["log"]


def test_a_certificate_past_its_date_is_told(ask: Ask, served: Served) -> None:
    authority = {"/etc/pki/ca-trust/source/anchors/corporate.pem": (served.root / "ca.pem").read_text()}
    told = ask(scheme="expired", options="gpgkey=file:///none", files=authority)
    assert told["code"] == "packages-failed" and "Curl error (60): SSL peer certificate" in told["message"], told
    assert "clock" in told["remedy"] and "attempt " not in told["log"]


def test_a_damaged_rpm_database_of_the_image_is_none_of_ours(ask: Ask) -> None:
    assert_whole(ask(files={"/var/lib/rpm/rpmdb.sqlite": "no database\n", "/var/lib/rpm/.rpm.lock": ""}))


def test_the_images_own_repositories_can_be_switched_off(ask: Ask) -> None:
    listed = {"/usr/share/driverctr/default-repositories": "/etc/yum.repos.d/test.repo\n"}
    assert_whole(ask(files=listed))
    told = ask(files=listed, defaults=False)
    words = "no repository is enabled, and the image's own are left out: DEFAULT_REPOSITORIES=false"
    assert (told["code"], told["message"], told["served"]) == ("packages-failed", words, [])
