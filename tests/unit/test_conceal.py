"""What is secret is told nowhere, and what is not secret stays as it is."""

import json
import os
import re
import time
from base64 import b64encode

import pytest

from driverctr import conceal
from driverctr.conceal import conceal_all, conceal_command, learn, learn_environment, learn_text, printed

KEY = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj"
PEM = f"-----BEGIN RSA PRIVATE KEY-----\n{KEY}\n{KEY[::-1]}\n-----END RSA PRIVATE KEY-----"
BASIC = b64encode(b"joe:hunter2x").decode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Err https://joe:hunter2x@deb.example/x 403", "Err https://...@deb.example/x 403"),
        ("socks5://joe:hunt@er2x@proxy.example:1080", "socks5://...@proxy.example:1080"),
        ("from https://hunter2x@deb.example/", "from https://...@deb.example/"),
        (
            "https://s3.example/k?X-Amz-Credential=AK/1&X-Amz-Date=2026&X-Amz-Signature=hunter2x failed",
            "https://s3.example/k?X-Amz-Credential=...&X-Amz-Date=2026&X-Amz-Signature=... failed",
        ),
        ("https://b.example/c?sv=1&sig=hunter2x%3D&se=2", "https://b.example/c?sv=1&sig=...&se=2"),
        ("GET /x?_auth_=exp=1~hmac=hunter2x HTTP/1.1", "GET /x?_auth_=... HTTP/1.1"),
        (f"> Authorization: Basic {BASIC}\n> Host: x", "> Authorization: Basic ...\n> Host: x"),
        ("Proxy-Authorization: hunter2x", "Proxy-Authorization: ..."),
        (f"{{'Authorization': 'Basic {BASIC}', 'Accept': '*'}}", "{'Authorization': 'Basic ...', 'Accept': '*'}"),
        ('authorization: Digest username="joe", response="hunter2x"\nnext', "authorization: ...\nnext"),
        ("Set-Cookie: session=hunter2x; Path=/", "Set-Cookie: ..."),
        ("curl -H 'PRIVATE-TOKEN: hunter2x' https://x", "curl -H 'PRIVATE-TOKEN: ...' https://x"),
        ("the server wants Bearer hunter2xhunter2xhunter2x now", "the server wants Bearer ... now"),
        ("tool --password hunter2x --user joe", "tool --password ... --user joe"),
        ("tool --db-password=hunter2x -v", "tool --db-password=... -v"),
        ("tool --password 'hun ter2x' -v", "tool --password ... -v"),
        ("tool '--password=it'\"'\"'s hunter2x' -v", "tool '--password=...' -v"),
        ("tool --api-key hunter2x", "tool --api-key ..."),
        ("curl -u joe:hunter2x https://x", "curl -u joe:... https://x"),
        ("wget --proxy-user=joe:hunter2x", "wget --proxy-user=joe:..."),
        ("sshpass -p hunter2x ssh host", "sshpass -p ... ssh host"),
        ("mysql -u joe -phuntersx db", "mysql -u joe -p... db"),
        ("tool -phunter2x -v", "tool -p... -v"),
        ("curl --pass hunter2x --proxy-pass=hunter2x", "curl --pass ... --proxy-pass=..."),
        ("openssl -passin pass:hunter2x -passout=pass:hunter2x", "openssl -passin pass:... -passout=pass:..."),
        ("DB_PASS=hunter2x pass=hunter2x", "DB_PASS=... pass=..."),
        ("mount -o user=joe,pass=hunter2x", "mount -o user=joe,pass=..."),
        ("KBUILD_SIGN_PIN=hunter2x psk=hunter2x", "KBUILD_SIGN_PIN=... psk=..."),
        ("LICENSE_KEY=hunter2x --registration-key hunter2x", "LICENSE_KEY=... --registration-key ..."),
        ("mount //joe:hunter2x@host/share", "mount //joe:...@host/share"),
        ("http_proxy=joe:hunter2x@proxy.example:3128", "http_proxy=joe:...@proxy.example:3128"),
        ('{"auths": {"x": {"auth": "aHVudGVyMng="}}}', '{"auths": {"x": {"auth": "..."}}}'),
        (
            f"-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n{KEY}\n-----END PGP PRIVATE KEY BLOCK-----, gone",
            "..., gone",
        ),
        ("pro attach hunter2x", "pro attach ..."),
        ("env NGC_API_KEY=hunter2x run", "env NGC_API_KEY=... run"),
        ("token=hunter2x", "token=..."),
        ("proxy_password = hunter2x", "proxy_password = ..."),
        ('client_secret="hunter2x yes"', "client_secret=..."),
        ("aws_secret_access_key=hunt/er2x", "aws_secret_access_key=..."),
        ("mysql pwd=hunter2x", "mysql pwd=..."),
        ('{"password": "hunter2x", "a": 1}', '{"password": ..., "a": 1}'),
        ("{'token': 'hunter2x'}", "{'token': ...}"),
        (r'b"{\"token\": \"hunter2x\", \"a\": 1}"', r'b"{\"token\": ...\", \"a\": 1}"'),
        ("auth:\n  password: hunter2x\n  x: y", "auth:\n  password: ...\n  x: y"),
        (
            "<Error><AWSAccessKeyId>hunter2x</AWSAccessKeyId></Error>",
            "<Error><AWSAccessKeyId>...</AWSAccessKeyId></Error>",
        ),
        ("machine deb.example login joe password hunter2x", "machine deb.example login joe password ..."),
        (f"before {PEM} after", "before ... after"),
        (PEM.replace("\n", "; "), "..."),
        (f"tail: {KEY}; {KEY}; -----END PRIVATE KEY-----", "tail: ..."),
        (f"tail: {KEY}\nhunter2x=\n-----END PRIVATE KEY-----", "tail: ..."),
        (rf"tail: {KEY}\nhunter2x=\n-----END PRIVATE KEY-----", "tail: ..."),
        (f"-----BEGIN PRIVATE KEY-----\n{KEY}", "..."),
        ("pushed with ghp_0123456789abcdefghij0123", "pushed with ..."),
    ],
)
def test_what_looks_secret_by_its_place_is_hidden(text: str, shown: str) -> None:
    assert conceal.conceal(text) == shown
    assert conceal.conceal(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "UBUNTU_PRO_TOKEN='...' is not a token: one word of letters, digits and .~+/=-",
        "nvidia has build-id 5f2c1e0d9b8a7f6e5d4c3b2a19080706f5e4d3c2, not 00ffee",
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "registry.example/nvidia/driver@sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "535.309.01 (open) for 6.1.0-40-amd64, 5.14.0-503.el9.x86_64, 6.8.0-1023-aws",
        "GPU 0000:3b:00.0: RmInitAdapter failed! (0x26:0x56:1463)",
        "write to maintainer@project.example about it",
        "git@code.example:nvidia/modules.git",
        "--private-key /run/secrets/push.pem was not found",
        "AWS_SHARED_CREDENTIALS=/root/.aws and PWD=/root are folders",
        "signing_key=/usr/src/key.pem",
        "CONFIG_SECRETMEM=y CONFIG_MODULE_SIG_KEY=certs/signing_key.pem",
        "REMOTE_PUBLIC_KEY=GyBs0Xo2yTg2sF0B2v0a5yq6t8bJ4l8mH4yEvN1c3aA=",
        "gpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-redhat-release",
        "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGyBs\n-----END PUBLIC KEY-----",
        "docker run -u 1000:1000 --user 0:0 image",
        "make -j8 CC=gcc-12 KCFLAGS=-g0 NV_KERNEL_MODULES='nvidia nvidia-uvm' modules",
        "  CC [M]  /var/tmp/driverctr-x/source/nvidia/nv-keyring.o",
        "the token was refused; a password may be missing: see the secret's file",
        "Check package sources, proxy and network. Credentials: see /etc/apt/auth.conf.d",
        "https://deb.example/debian/pool/main/l/linux?arch=amd64&release=bookworm",
        "waiting for a signal (tokens: 5, keys: 3)",
        "NVreg_RegistryDwords=RMSecBusResetEnable=1 NVreg_EnableStreamMemOPs=1",
        "the key 0xFEED is expired; sign with another key: none was given",
        "basic authentication is needed; the bearer certificates-of-this-server",
        "  --password-file /run/secrets/x --token-ttl 5",
        "gcc -pthread -pipe -print-file-name=libgcc_s.so.1 -p2222:22 -p8080 patch -p1 -print-prog-name=ld2",
        "12 tests: pass=12 fail=0; spin=1; bypass=yes --bypass 5 --passes 3",
        "/usr/lib/xorg/Xorg :0 -auth /run/user/1000/Xauthority mysqld --pid-file=/run/mysqld.pid",
        "no_proxy=localhost,10.0.0.0/8 http_proxy=http://proxy.example:3128",
        "//proxy.example:3128/x and a comment // joe: see me@host.example",
    ],
)
def test_what_is_not_secret_stays(text: str) -> None:
    assert conceal.conceal(text) == text


def test_what_was_given_as_secret_is_hidden_wherever_it_stands() -> None:
    learn("C1secret9TOKEN", "short1", "word")
    said = conceal.conceal("x.C1secret9TOKENx: short1, shorty short1y, a word for words")
    assert said == "x....x: ..., shorty short1y, a ... for words"


def test_the_forms_in_which_a_secret_comes_back() -> None:
    learn("p\"a ss'w\\ord/1")
    for form in (
        repr("p\"a ss'w\\ord/1"),
        json.dumps("p\"a ss'w\\ord/1"),
        "x=p%22a%20ss%27w%5Cord%2F1",
        "p%22a%20ss%27w%5Cord/1",
    ):
        assert "ord" not in conceal.conceal(form), form


def test_an_environment_tells_secrets_by_its_names_and_in_its_addresses() -> None:
    learn_environment(
        {
            "UBUNTU_PRO_TOKEN": "C1aaaa1111",
            "MY_DB_PASSWORD_2": "bbbb2222",
            "SIGNING_KEY": PEM,
            "REMOTE_URL": "https://joe:cccc%2F3333@modules.example/",
            "https_proxy": "joe:dddd4444@proxy.example:3128",
            "GIT": "https://eeee5555@git.example",
            "AWS_CREDENTIALS": "/root/not-secret-6666",
            "DRIVER_VERSION": "535.309.01",
            "PWD": "/root/not-secret-7777",
            "FEATURE_TOKEN": "true",
        }
    )
    both = b64encode(b"joe:cccc/3333").decode()
    secret = f"C1aaaa1111 bbbb2222 {KEY} cccc%2F3333 cccc/3333 dddd4444 eeee5555 {both}"
    assert set(conceal.conceal(secret).split()) == {"..."}
    plain = "true joe modules.example /root/not-secret-6666 /root/not-secret-7777 535.309.01"
    assert conceal.conceal(plain) == plain


@pytest.mark.parametrize("password", ["hun/ter2x", "hun#ter2x", "hun?ter2x", "hun@ter2x"])
def test_the_password_of_a_proxy_is_known_where_it_should_have_been_quoted(password: str) -> None:
    learn_environment({"https_proxy": f"http://joe:{password}@proxy.example:3128"})
    assert conceal.conceal(f"bad address http://joe:{password}@proxy.example:3128").count(password) == 0
    assert conceal.conceal(f"Unsupported port: {password}") == "Unsupported port: ..."


def test_files_of_settings_tell_secrets() -> None:
    learn_text(
        "machine deb.example\nlogin joe\npassword aaaa1111\n"
        "baseurl=https://joe:bbbb2222@rpm.example/$releasever\npassword = cccc3333\ngpgkey=file:///etc/key-4444\n"
        'Acquire::http::Proxy "http://joe:dddd5555@proxy.example:3128";\n'
    )
    assert set(conceal.conceal("aaaa1111 bbbb2222 cccc3333 dddd5555").split()) == {"..."}
    assert conceal.conceal("joe at file:///etc/key-4444") == "joe at file:///etc/key-4444"


def test_a_command_line_has_no_secret_whatever_is_in_it() -> None:
    words = [
        "tool",
        "--password",
        "my two words",
        "--api-key=two words",
        "NAME_TOKEN=a b",
        "-u",
        "joe:abc",
        "--secret",
        "-v",
    ]
    assert conceal_command(words) == "tool --password ... --api-key=... NAME_TOKEN=... -u joe:... --secret -v"
    assert conceal_command(["tool", "--private-key", "/run/key.pem"]) == "tool --private-key /run/key.pem"


def test_a_document_is_hidden_before_it_is_json() -> None:
    learn('pass"word1')
    document = {
        "a": ['x pass"word1', 1, None, True],
        "TOKEN": "zz",
        "b": ("y",),
        "c": {"token": 7, "private_key": "/k"},
    }
    assert conceal_all(document) == {
        "a": ["x ...", 1, None, True],
        "TOKEN": "...",
        "b": ["y"],
        "c": {"token": 7, "private_key": "/k"},
    }


def test_a_long_text_takes_time_in_proportion_to_its_length() -> None:
    words = (
        "password token secret key sig auth cookie -u --private-key- x-token ?&:// private key----- pwd machine login "
    )
    for text in (
        words * 2000,
        "a" * 300_000 + words,
        "-" * 100_000 + words,
        "A=" * 100_000 + words,
        "\\" * 100_000 + words,
        "'\"" * 50_000 + words,
        " " * 100_000 + words,
        "https://" * 20_000 + words,
        "token=" * 20_000,
        "x-" * 50_000 + words,
        "&a." * 50_000 + words,
        "-----BEGIN PRIVATE KEY-----" * 5000,
        "A" * 200_000 + "-----END PRIVATE KEY",
        "bearer " * 20_000,
        "gh" * 50000 + "eyJ" * 50000,
        "login a " * 20000,
        "proxy=a:" * 20_000,
        "mysql-" * 30_000,
        "-p1a" * 50_000 + " -p1" + "a" * 100_000 + "/",
        "//a:" * 50_000,
        "--pass-" * 30_000,
        ("MIIn" * 16 + "\n") * 2000 + words,
        ("MIIn" * 16 + "\\n") * 2000 + words,
    ):
        started = time.process_time()
        conceal.conceal(text)
        assert time.process_time() - started < 5, text[:40]


def test_patterns_are_not_compiled_for_ordinary_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    with monkeypatch.context() as patched:
        patched.setattr(re, "compile", lambda text, *_: compiled.append(text))
        for line in ("ready; waiting for a stop", "load: load nvidia, nvidia-uvm", "modules: done in 0.05 s"):
            assert conceal.conceal(line) == line
    assert not compiled


def test_what_is_printed_is_concealed_as_text_and_as_json() -> None:
    assert printed("token=hunter2x yes\n") == "token=... yes\n"
    document = {"password": "hunter2x", "a": ["Authorization: Digest a=hunter2x"], "token": None}
    said = printed(document)
    assert json.loads(said) == {"password": "...", "a": ["Authorization: ..."], "token": None}
    assert said.startswith("{\n") and said.endswith("}\n")


def test_a_secret_that_is_no_text_is_learned_too() -> None:
    name = os.fsdecode(b"caf\xe9-secret")
    learn_environment({"A_TOKEN": name, "X": f"https://joe:{name}2@x.example"})
    assert conceal.conceal(f"{name} {name}2") == "... ..."
