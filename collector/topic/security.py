"""How the collector and the indexer prove to Kafka who they are, and Kafka to them: TLS and SASL.

Settings and the files that they name go in, a login comes out: a TLS context and a secret. Files
may be replaced at any time; a new login is made when one was, and the last good one is kept while
they cannot be used. Secrets come from files only and are never shown.
"""

import importlib.util
import logging
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import msgspec

from collector.errors import SettingError, TopicUnavailable
from collector.process import setting
from collector.watched_files import WatchedFiles

_WITH_PASSWORD = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_MECHANISMS = (*_WITH_PASSWORD, "OAUTHBEARER", "GSSAPI")

_log = logging.getLogger(__name__)


class KafkaSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Connect to Kafka: what both ends of the topic have in common."""

    kafka_tls: Annotated[
        bool, setting("encrypt the connections to Kafka and verify its certificate")
    ] = False
    kafka_tls_ca: Annotated[
        str, setting("PEM file of the authorities to trust; empty: the system's")
    ] = ""
    kafka_tls_certificate: Annotated[
        str, setting("PEM file of the client's certificate and its chain; empty: none")
    ] = ""
    kafka_tls_key: Annotated[
        str, setting("PEM file of its key, not encrypted; empty: in the certificate's file")
    ] = ""
    kafka_sasl_mechanism: Annotated[
        str, setting("PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER or GSSAPI; empty: no login")
    ] = ""
    kafka_sasl_username: Annotated[str, setting("user of PLAIN and SCRAM")] = ""
    kafka_sasl_password_file: Annotated[str, setting("file with the password of that user")] = ""
    kafka_sasl_token_file: Annotated[str, setting("file with the token of OAUTHBEARER")] = ""


@dataclass(frozen=True, slots=True, eq=False)
class Login:
    """What one connection needs, as the files had it at one moment."""

    settings: KafkaSettings
    tls: ssl.SSLContext | None
    password: str = field(repr=False)

    @property
    def protocol(self) -> str:
        """Kafka's name of the security protocol."""
        sasl = "SASL_" if self.settings.kafka_sasl_mechanism else ""
        return sasl + ("SSL" if self.tls else "PLAINTEXT")

    def token(self) -> str:
        """Return the token as its file has it now; raise TopicUnavailable without one."""
        return _secret(self.settings, "kafka_sasl_token_file")


class Security:
    """The newest login; asked before each use of a connection, it costs a stat of each file."""

    def __init__(self, settings: KafkaSettings) -> None:
        """Raise SettingError if the settings contradict each other; no file is read yet."""
        _check(settings)
        self._settings = settings
        paths = (
            settings.kafka_tls_ca,
            settings.kafka_tls_certificate,
            settings.kafka_tls_key,
            settings.kafka_sasl_password_file,
            settings.kafka_sasl_token_file,
        )
        self._files = WatchedFiles(filter(None, paths))
        self._login: Login | None = None

    def login(self) -> Login:
        """Return the login of the files as they are, or were when they could last be used.

        Another object is returned exactly when a file has changed. Raises TopicUnavailable if no
        files could be used yet.
        """
        if self._files.have_changed() or self._login is None:
            try:
                self._login = _login(self._settings)
            except TopicUnavailable as error:
                if self._login is None:
                    raise
                _log.error(
                    "changed files cannot be used; staying connected to kafka with the old ones",
                    extra={"error": str(error)},
                )
        return self._login


def _check(s: KafkaSettings) -> None:
    mechanism = s.kafka_sasl_mechanism
    if mechanism and mechanism not in _MECHANISMS:
        raise SettingError(
            f"kafka_sasl_mechanism {mechanism!r} is unknown; choose one of {', '.join(_MECHANISMS)}"
        )
    needed = {
        "kafka_tls": ("kafka_tls_ca", "kafka_tls_certificate", "kafka_tls_key"),
        "kafka_tls_certificate": ("kafka_tls_key",),
        "kafka_sasl_mechanism": (
            "kafka_sasl_username", "kafka_sasl_password_file", "kafka_sasl_token_file",
        ),
    }  # fmt: skip
    for name, users in needed.items():
        for user in users:
            if getattr(s, user) and not getattr(s, name):
                raise SettingError(f"{user} does nothing without {name}; set {name} too")
    if mechanism in _WITH_PASSWORD and not (s.kafka_sasl_username and s.kafka_sasl_password_file):
        raise SettingError(
            f"{mechanism} needs a user; set kafka_sasl_username and kafka_sasl_password_file"
        )
    if mechanism == "OAUTHBEARER" and not s.kafka_sasl_token_file:
        raise SettingError("OAUTHBEARER needs a token; set kafka_sasl_token_file")
    if mechanism == "GSSAPI" and importlib.util.find_spec("gssapi") is None:
        raise SettingError(
            "GSSAPI needs the Python package gssapi and the system's Kerberos libraries; "
            "install both, or choose another kafka_sasl_mechanism"
        )


def _login(s: KafkaSettings) -> Login:
    tls = _context(s) if s.kafka_tls else None
    password = _secret(s, "kafka_sasl_password_file") if s.kafka_sasl_password_file else ""
    if s.kafka_sasl_token_file:
        _secret(s, "kafka_sasl_token_file")
    return Login(s, tls, password)


def _context(s: KafkaSettings) -> ssl.SSLContext:
    if s.kafka_tls_ca:
        _pem(s, "kafka_tls_ca", "CERTIFICATE-----")
    try:
        context = ssl.create_default_context(cafile=s.kafka_tls_ca or None)
    except (OSError, ValueError) as error:
        raise TopicUnavailable(
            f"kafka_tls_ca {s.kafka_tls_ca}: {error}; put PEM certificates there"
        ) from error
    if not s.kafka_tls_certificate:
        return context
    _pem(s, "kafka_tls_certificate", "CERTIFICATE-----")
    key = "kafka_tls_key" if s.kafka_tls_key else "kafka_tls_certificate"
    _pem(s, key, "PRIVATE KEY-----")
    try:
        # A password of its own, so that nobody is asked for one on a terminal.
        context.load_cert_chain(s.kafka_tls_certificate, s.kafka_tls_key or None, lambda: "none")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        if reason == "KEY_VALUES_MISMATCH":
            reason = "the key is of another certificate"
        raise TopicUnavailable(
            f"kafka_tls_certificate {s.kafka_tls_certificate} with {key} {getattr(s, key)}: "
            f"{reason}; put a certificate and its key there, not encrypted"
        ) from error
    return context


def _pem(s: KafkaSettings, name: str, what: str) -> None:
    """Raise TopicUnavailable unless the file has a PEM block of the kind."""
    if what not in _text(s, name):
        raise TopicUnavailable(
            f"{name} {getattr(s, name)}: no {what.rstrip('-').lower()} in it; put one there as PEM"
        )


def _secret(s: KafkaSettings, name: str) -> str:
    text = _text(s, name).strip("\r\n")
    if not text:
        raise TopicUnavailable(f"{name} {getattr(s, name)} is empty; put the secret there")
    return text


def _text(s: KafkaSettings, name: str) -> str:
    path = getattr(s, name)
    try:
        return Path(path).read_text("utf-8")
    except OSError as error:
        reason = error.strerror
    except ValueError:  # without its own text, which shows bytes of the file
        reason = "not text in UTF-8"
    raise TopicUnavailable(f"{name} {path}: {reason}; mount it, readable for this user")
