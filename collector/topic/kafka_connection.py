"""One client of Kafka, kept connected: with the newest login, to brokers that may have moved.

Addresses and a login go in, a started client of aiokafka comes out. aiokafka never asks again the
addresses that it was given, and none of its clients changes its login: whoever gets no answer asks
``why_lost`` and drops the client, and the next one starts from the addresses.
"""

import asyncio
import functools
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import aiokafka
import aiokafka.admin
import aiokafka.client

from collector.errors import TopicUnavailable
from collector.topic.kafka_login import arguments, cause, host_and_port, is_refusal, told
from collector.topic.security import Login, Security

REQUEST_S = 20.0
_CLOSE_S = 1.0
_RENEW_S = 30.0

# Asked for by name, a topic would be made by brokers that may do so, with one partition.
aiokafka.client.MetadataRequest = functools.partial(
    aiokafka.client.MetadataRequest, allow_auto_topic_creation=False
)

_Client = TypeVar(
    "_Client",
    aiokafka.AIOKafkaProducer,
    aiokafka.AIOKafkaConsumer,
    aiokafka.admin.AIOKafkaAdminClient,
)

_log = logging.getLogger(__name__)


class Connection(Generic[_Client]):
    """At most one client at a time; connects when it is first asked for."""

    def __init__(
        self, brokers: Sequence[str], security: Security, make: Callable[..., _Client]
    ) -> None:
        """``make`` takes the keywords that all of aiokafka's clients have in common."""
        self._brokers = list(brokers)
        self._security = security
        self._make = make
        self._client: _Client | None = None
        self._login: Login | None = None
        self._refused: Login | None = None
        self._again_s = 0.0
        self._lock = asyncio.Lock()  # several tasks may be the first to ask

    async def client(self) -> _Client:
        """Return the client; connect if there is none, or if the login is newer.

        Nothing may be on its way. The old client stays while the new one is refused. Raises
        TopicUnavailable.
        """
        async with self._lock:
            if self._client is None:
                login = self._security.login()
                self._client, self._login = await self._started(login), login
            else:
                await self._renew(self._client)
            return self._client

    async def _renew(self, old: _Client) -> None:
        login = self._security.login()
        waits = self._refused is login and time.monotonic() < self._again_s
        if self._login is login or waits:
            return
        try:
            self._client, self._login = await self._started(login), login
        except TopicUnavailable as error:
            if self._refused is not login:
                _log.error(
                    "changed files were refused; staying connected to kafka with the old ones",
                    extra={"error": str(error)},
                )
            self._refused, self._again_s = login, time.monotonic() + _RENEW_S
            return
        _log.info("connected to kafka with changed files")
        await _stop(old)

    async def drop(self) -> None:
        """Stop the client; what it has not delivered is given up."""
        async with self._lock:
            client, self._client = self._client, None
            if client is not None:
                await _stop(client)

    async def why_lost(self) -> TopicUnavailable | None:
        """Return why the client will get no answer any more, if that is so.

        Its login is refused, or no broker is where it was when the client last heard of it.
        """
        client, login = self._client, self._login
        if client is None or login is None:
            return None
        causes = await self._causes(login)
        if any(map(is_refusal, causes)):
            return self._unavailable(causes, login)
        # Not over the client's own connections: a broker answers one request after the other.
        known = _network(client).cluster.brokers()
        missed = await asyncio.gather(*(cause(each.host, each.port, login) for each in known))
        if None in missed:
            return None
        return self._unavailable(causes or [ConnectionError("the brokers have moved")], login)

    async def refresh(self) -> bool:
        """Ask for topics and brokers again; return whether a broker answers where it was."""
        if self._client is None:
            return False
        asked = _network(self._client).force_metadata_update()
        try:
            async with asyncio.timeout(REQUEST_S):
                answered: bool = await asked
        except TimeoutError:
            return False
        return answered

    async def unavailable(self, error: Exception) -> TopicUnavailable:
        """Return what an error of aiokafka means, with what the brokers say to a new client."""
        login = self._security.login()
        return self._unavailable(await self._causes(login) or [error], login)

    async def _started(self, login: Login) -> _Client:
        client = self._make(
            bootstrap_servers=self._brokers,
            request_timeout_ms=int(REQUEST_S * 1000),
            **arguments(login),
        )
        try:
            # Addresses are tried one after the other, and one may never answer.
            async with asyncio.timeout(REQUEST_S * (len(self._brokers) + 1)):
                await client.start()
            if not _network(client).cluster.brokers():  # a token that was refused looks like this
                raise aiokafka.errors.SaslAuthenticationFailed
        except asyncio.CancelledError:
            await _stop(client)
            raise
        except Exception as error:  # a login can fail with any error of the library behind it
            await _stop(client)
            raise self._unavailable(await self._causes(login) or [error], login) from error
        return client

    async def _causes(self, login: Login) -> list[Exception]:
        """Return why brokers cannot be reached: aiokafka does not tell, so each is asked again."""
        places = map(host_and_port, self._brokers)
        found = await asyncio.gather(*(cause(*place, login) for place in places))
        return [error for error in found if error is not None]

    def _unavailable(self, causes: Sequence[Exception], login: Login) -> TopicUnavailable:
        why = "; ".join(dict.fromkeys(told(error, login) for error in causes))
        return TopicUnavailable(f"kafka at {self._brokers}: {why}")


def _network(client: _Client) -> Any:
    """Return what a client's requests go through."""
    if isinstance(client, aiokafka.AIOKafkaProducer):
        return client.client
    return client._client


async def _stop(client: _Client) -> None:
    """Stop a client, even one that waits for a broker which is away; nothing is flushed."""
    network = _network(client)
    if isinstance(client, aiokafka.AIOKafkaProducer):
        client._closed = True
        for connection in tuple(network._conns.values()):
            connection.close()  # or what is on its way is waited for
        await client._sender.close()
    else:
        # A task of its own, for aiokafka may end one with CancelledError when its fetches fail.
        stopping = asyncio.create_task(getattr(client, "stop", network.close)())
        await asyncio.wait([stopping], timeout=_CLOSE_S)
        stopping.cancel()
        await asyncio.wait([stopping])
    await network.close()
