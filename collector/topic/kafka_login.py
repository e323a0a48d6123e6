"""A login as aiokafka takes it, and why a broker refused it.

A login goes in; keywords for aiokafka's clients come out, or one sentence that names the cause and
the setting to look at. No secret is ever part of that sentence.
"""

import asyncio
import ssl
from typing import Any

from aiokafka import errors as kafka
from aiokafka.abc import AbstractTokenProvider
from aiokafka.conn import create_conn, get_ip_port_afi

from collector.errors import TopicUnavailable
from collector.topic.security import Login

_CAUSE_S = 10.0
_LOGIN_ERRORS = (
    kafka.SaslAuthenticationFailed,
    kafka.AuthenticationFailedError,
    kafka.UnsupportedSaslMechanismError,
)


class _TokenFile(AbstractTokenProvider):  # type: ignore[misc]  # it has no types
    """The token of OAUTHBEARER, as its file has it at each login."""

    def __init__(self, login: Login) -> None:
        self._login = login

    async def token(self) -> str:
        try:
            return self._login.token()
        except TopicUnavailable as error:
            raise kafka.KafkaError(str(error)) from error  # what aiokafka takes for a failure


def arguments(login: Login) -> dict[str, Any]:
    """Return what aiokafka's clients and connections take of a login, as keywords."""
    mechanism = login.settings.kafka_sasl_mechanism
    if not mechanism:
        return {"security_protocol": login.protocol, "ssl_context": login.tls}
    return {
        "security_protocol": login.protocol,
        "ssl_context": login.tls,
        "sasl_mechanism": mechanism,
        "sasl_plain_username": login.settings.kafka_sasl_username,
        "sasl_plain_password": login.password,
        "sasl_oauth_token_provider": _TokenFile(login) if mechanism == "OAUTHBEARER" else None,
    }


def host_and_port(broker: str) -> tuple[str, int]:
    """Return the parts of an address as aiokafka reads it."""
    host, port, _ = get_ip_port_afi(broker)
    return host, port


async def cause(host: str, port: int, login: Login) -> Exception | None:
    """Return the error of a connection with this login; None if it works."""
    try:
        async with asyncio.timeout(_CAUSE_S):
            connection = await create_conn(host, port, **arguments(login))
    except kafka.KafkaConnectionError as error:  # what closed it is its cause
        return error.__cause__ if isinstance(error.__cause__, Exception) else error
    except Exception as error:  # a login can fail with any error of the library behind it
        return error
    connection.close()
    return None


def is_refusal(error: Exception) -> bool:
    """Return whether the broker rejected this client, or the client its certificate."""
    return isinstance(error, (ssl.SSLError, *_LOGIN_ERRORS))


def told(error: Exception, login: Login) -> str:
    """Return what to do about an error, for who has to mend it."""
    s = login.settings
    if isinstance(error, ssl.SSLCertVerificationError):
        trusted = f"kafka_tls_ca {s.kafka_tls_ca}" if s.kafka_tls_ca else "the system's authorities"
        return f"certificate verify failed: {error.verify_message}; compare with {trusted}"
    if isinstance(error, ssl.SSLError):
        shown = f"kafka_tls_certificate {s.kafka_tls_certificate or 'is not set'}"
        return f"no TLS with the broker: {error.reason}; check its port, and {shown}"
    mechanism = s.kafka_sasl_mechanism
    if isinstance(error, kafka.UnsupportedSaslMechanismError):
        return f"the broker does not support {mechanism}; choose another kafka_sasl_mechanism"
    if isinstance(error, kafka.SaslAuthenticationFailed) and mechanism == "OAUTHBEARER":
        return f"authentication failed by OAUTHBEARER; check {s.kafka_sasl_token_file}"
    if isinstance(error, kafka.SaslAuthenticationFailed) and s.kafka_sasl_username:
        return (
            f"authentication failed for user {s.kafka_sasl_username!r} by {mechanism}; "
            f"check kafka_sasl_password_file {s.kafka_sasl_password_file}"
        )
    return repr(error)
