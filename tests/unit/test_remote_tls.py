"""A remote folder behind TLS: whose certificate is believed, and how long a handshake may take."""

import datetime
import ipaddress
import ssl
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from driverctr.errors import Code, DriverError
from driverctr.log import Log
from driverctr.modules.web import JOIN_LIMIT
from tests.unit import remote_server
from tests.unit.remote_entries import KEY, QUICK, Pushed, node, text_of
from tests.unit.remote_entries import pushed as pushed
from tests.unit.remote_server import Server, redirect, served


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "modules")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(private, hashes.SHA256())
    )
    files = folder / "certificate.pem", folder / "certificate.key"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return files


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """The certificate of the server below."""
    return make_certificate(tmp_path)[0]


@pytest.fixture
def server(pushed: Pushed, certificate: Path) -> Iterator[Server]:
    """A server that speaks TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    with served(pushed.folder, context) as running:
        yield running


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_an_authority_of_the_environment_is_believed(
    pushed: Pushed, server: Server, log: Log, certificate: Path, variable: str
) -> None:
    remote = node(server.url, pushed.public, log)
    assert replace(remote, environment={variable: str(certificate)}).find(KEY).key == KEY


def test_folders_of_authorities_may_be_a_list(pushed: Pushed, server: Server, log: Log, tmp_path: Path) -> None:
    remote = replace(node(server.url, pushed.public, log), environment={"SSL_CERT_DIR": f"/nowhere:{tmp_path}"})
    with pytest.raises(DriverError, match="not believed") as error:
        remote.find(KEY)
    assert error.value.code is Code.REMOTE_FAILED
    with pytest.raises(DriverError, match="SSL_CERT_DIR=/nowhere:/neither: no such file") as error:
        replace(remote, environment={"SSL_CERT_DIR": "/nowhere:/neither"}).find(KEY)
    assert error.value.code is Code.BAD_SETTING


def test_a_certificate_that_nobody_vouches_for_is_told_at_once(pushed: Pushed, server: Server, log: Log) -> None:
    with pytest.raises(DriverError, match=r"not believed: .*certificate verify failed.*self.signed") as error:
        node(server.url, pushed.public, log).find(KEY)
    assert error.value.code is Code.REMOTE_FAILED and "SSL_CERT_FILE" in error.value.remedy
    assert "next in" not in text_of(log)


def test_a_redirect_out_of_tls_is_not_followed(pushed: Pushed, server: Server, log: Log, certificate: Path) -> None:
    server.behaviour = redirect(server.url.replace("https:", "http:"))
    with pytest.raises(DriverError, match="redirected from https to http"):
        node(server.url, pushed.public, log, SSL_CERT_FILE=str(certificate)).find(KEY)


@pytest.mark.parametrize("silence", [remote_server.stall, remote_server.drip_body])
def test_a_server_that_is_slow_within_tls_costs_a_bounded_time(
    pushed: Pushed, server: Server, log: Log, certificate: Path, silence: remote_server.Behaviour
) -> None:
    server.behaviour = silence
    began = time.monotonic()
    with pytest.raises(DriverError) as error:
        node(server.url, pushed.public, log, QUICK, SSL_CERT_FILE=str(certificate)).find(KEY)
    assert error.value.code is Code.REMOTE_FAILED
    assert time.monotonic() - began < QUICK.documents + JOIN_LIMIT + 2


def test_a_server_that_never_answers_the_handshake_costs_a_bounded_time(pushed: Pushed, log: Log) -> None:
    with served(pushed.folder) as plain:
        plain.mute = True
        began = time.monotonic()
        with pytest.raises(DriverError) as error:
            node(plain.url.replace("http:", "https:"), pushed.public, log, QUICK).find(KEY)
    assert error.value.code is Code.REMOTE_FAILED
    assert time.monotonic() - began < QUICK.documents + JOIN_LIMIT + 2
