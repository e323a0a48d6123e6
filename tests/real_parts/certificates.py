"""A certificate authority for a test run.

A folder comes in; certificates and keys go out as PEM files, valid for a day, for 127.0.0.1.
"""

import ipaddress
import itertools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Signed:
    """A certificate and its key."""

    certificate: Path
    key: Path

    def joined(self) -> Path:
        """A file that holds both, as Kafka wants its key store."""
        path = self.key.with_suffix(".both.pem")
        path.write_text(self.key.read_text() + self.certificate.read_text())
        return path


class Authority:
    """Signs certificates; `certificate` is its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._numbers = itertools.count(1)
        self._key = _new_key()
        self._name = _named("tests")
        own = self._builder(self._name, self._key.public_key())
        own = own.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.certificate = folder / "ca.pem"
        self._write(self.certificate, own.add_extension(_SIGNS_CERTIFICATES, critical=True))

    def sign(self, name: str) -> Signed:
        """Make a key, and a certificate with this name."""
        stem = self._folder / f"{name}-{next(self._numbers)}"
        signed = Signed(stem.with_suffix(".pem"), stem.with_suffix(".key"))
        key = _new_key()
        pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        signed.key.write_bytes(key.private_bytes(pem, pkcs8, serialization.NoEncryption()))
        here = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        made = self._builder(_named(name), key.public_key())
        made = made.add_extension(x509.SubjectAlternativeName([here]), critical=False)
        self._write(signed.certificate, made.add_extension(x509.ExtendedKeyUsage(uses), False))
        return signed

    def _builder(self, subject: x509.Name, key: rsa.RSAPublicKey) -> x509.CertificateBuilder:
        """What each certificate has; OpenSSL wants the identifiers where it is strict."""
        now = datetime.now(UTC)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _HOUR)
            .not_valid_after(now + 24 * _HOUR)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(issuer, critical=False)
        )

    def _write(self, path: Path, made: x509.CertificateBuilder) -> None:
        certificate = made.sign(self._key, hashes.SHA256())
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


_SIGNS_CERTIFICATES = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
