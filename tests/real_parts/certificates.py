"""A certificate authority for a test run, made with the command openssl.

A folder comes in; certificates and keys go out as PEM files, valid for a day, for 127.0.0.1.
"""

import itertools
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.real_parts.guard import ServerError

_EXTENSIONS = """\
subjectAltName=IP:127.0.0.1
extendedKeyUsage=serverAuth,clientAuth
"""


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
        if shutil.which("openssl") is None:
            raise ServerError("the command openssl is missing; apt-get install openssl")
        folder.mkdir()
        self._folder = folder
        self._numbers = itertools.count(1)
        self._key, self.certificate = folder / "ca.key", folder / "ca.pem"
        _openssl(
            "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-days", "1", "-subj", "/CN=tests",
            "-addext", "keyUsage=critical,keyCertSign", "-keyout", self._key,
            "-out", self.certificate,
        )  # fmt: skip

    def sign(self, name: str) -> Signed:
        """Make a key, and a certificate with this name."""
        stem = self._folder / f"{name}-{next(self._numbers)}"
        signed = Signed(stem.with_suffix(".pem"), stem.with_suffix(".key"))
        request, extensions = stem.with_suffix(".csr"), stem.with_suffix(".ext")
        extensions.write_text(_EXTENSIONS)
        _openssl(
            "req", "-newkey", "rsa:2048", "-noenc", "-subj", f"/CN={name}",
            "-keyout", signed.key, "-out", request,
        )  # fmt: skip
        _openssl(
            "x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self._key,
            "-set_serial", str(next(self._numbers)), "-days", "1", "-extfile", extensions,
            "-out", signed.certificate,
        )  # fmt: skip
        return signed


def _openssl(*words: str | Path) -> None:
    done = subprocess.run(["openssl", *words], check=False, capture_output=True, text=True)
    if done.returncode:
        raise ServerError(f"openssl {words[0]} failed:\n{done.stderr}")
