"""What a broker says of a topic's settings, whole or in part, and what is made of it."""

import pytest

from collector.topic.kafka_limits import _CONFIGS, advice, configs_of, number, replicas_of

WHOLE = {
    "max.message.bytes": "1048588",
    "compression.type": "producer",
    "min.insync.replicas": "2",
    "cleanup.policy": "delete",
    "retention.ms": "604800000",
    "retention.bytes": "-1",
}


def test_a_topic_as_it_should_be_needs_no_advice() -> None:
    assert set(WHOLE) == set(_CONFIGS)
    assert list(advice(WHOLE, 3)) == []


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("said", [None, "", "absent"])
def test_a_setting_that_a_broker_does_not_say_is_named(name: str, said: str | None) -> None:
    configs: dict[str, str | None] = {**WHOLE, name: said}
    if said == "absent":
        del configs[name]
    (only,) = advice(configs, 3)
    assert f"what {name} are" in only


def test_what_is_known_is_checked_beside_what_is_not() -> None:
    found = list(advice({"min.insync.replicas": "1", "retention.ms": "1000"}, 3))
    assert [each.partition(" ")[0] for each in found] == [
        "kafka", "min.insync.replicas", "retention.ms",
    ]  # fmt: skip
    assert number({"retention.ms": "a week"}, "retention.ms", -1) == -1


class Admin:
    """An administrator's client that answers as it was told to."""

    def __init__(self, answer: list) -> None:
        self._answer = answer

    async def describe_configs(self, wanted: object) -> list:
        return self._answer

    async def describe_topics(self, names: object) -> list:
        return self._answer


@pytest.mark.parametrize("answer", [[], [{}], [{"partitions": None}], [{"partitions": [{}]}]])
async def test_a_broker_that_does_not_tell_the_replicas_is_taken_as_it_is(answer: list) -> None:
    assert await replicas_of(Admin(answer), "logs") == 0


async def test_an_answer_without_settings_is_none() -> None:
    assert await configs_of(Admin([]), "logs") == {}
