"""What a collector does by its policy and with labels, on the way of the lines."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from collector.checksum import crc32
from collector.errors import SettingError
from collector.files.placement import Placement, in_use, line_time_ns
from collector.labels.metadata import MetadataSettings
from tests.collector.node import SECOND, HeldTopic, Node, gaps_of, line, lines, ranges_of, seals_of

Make = Callable[..., Node]
DROP = "[[rule]]\nname = 'no-debug'\ndrop_pattern = 'DEBUG'\n"
REDACT = "[[rule]]\nname = 'cards'\nredact_pattern = 'card=([0-9]+)'\nredact_group = 1\n"


def rules(node: Node, text: str) -> Path:
    path = node.state.parent / "policy.toml"
    path.write_text(text)
    return path


async def test_what_a_rule_drops_is_accounted_for_and_ends_its_file(
    make: Make, tmp_path: Path
) -> None:
    (tmp_path / "policy.toml").write_text(DROP)
    node = make(policy=str(tmp_path / "policy.toml"), seal_quiet_ms=2000)
    kept, dropped = lines(0, 3), line(3, text="DEBUG a") + line(4, text="DEBUG b")
    data = node.write(node.file(), kept + dropped)
    await node.start()
    await node.pass_time(3)
    node.file().unlink()
    await node.pass_time(5)
    batches = await node.batches()
    (ranges,) = ranges_of(batches).values()
    assert b"".join(each.data for each in ranges) == kept
    (elided,) = [entry for batch in batches for entry in batch.elided]
    assert (elided.start, elided.end, elided.lines) == (len(kept), len(data), 2)
    assert elided.rule == "no-debug"
    assert elided.crc_after == crc32(data)
    (seal,) = seals_of(batches).values()
    assert (seal.size, seal.lines, seal.crc) == (len(data), 5, crc32(data))
    assert gaps_of(batches) == []
    assert node.collector.reader.elided == {"no-debug": (len(dropped), 2)}


async def test_a_run_goes_on_behind_what_was_dropped_at_the_end(make: Make, tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text(DROP)
    node = make(policy=str(tmp_path / "policy.toml"))
    node.write(node.file(), lines(0, 3) + line(3, text="DEBUG a"))
    await node.start()
    await node.pass_time(3)
    await node.crash()
    more = node.write(node.file(), lines(10, 2))
    await node.start()
    await node.pass_time(3)
    second = [batch for batch in await node.batches() if batch.run[-1] == 2]
    ((only,),) = ranges_of(second).values()
    assert only.data == more


async def test_redaction_keeps_offsets_and_the_chain_of_checksums(
    make: Make, tmp_path: Path
) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(REDACT)
    node = make(policy=str(path))
    first = node.write(node.file(), line(1, text="paid card=4111111111111111 ok"))
    await node.start()
    await node.pass_time(3)
    path.write_text("")  # the rule is taken away while the collector runs
    await node.pass_time(2)
    second = node.write(node.file(), line(2, text="paid card=4222222222222222 ok"))
    await node.pass_time(3)
    (ranges,) = ranges_of(await node.batches()).values()
    one, two = ranges
    assert one.data == first.replace(b"4111111111111111", b"*" * 16)
    assert (one.redacted, one.crc_after) == ("cards", crc32(first))
    assert (two.data, two.crc_before) == (second, crc32(first))


async def test_labels_that_are_known_come_with_the_lines_of_their_pod(
    make: Make, tmp_path: Path
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = (
            b'{"kind":"PodList","metadata":{},"items":[{"metadata":{"name":"api-0","namespace":'
            b'"payments","uid":"uid-api-0","labels":{"app":"api"}},"spec":{"nodeName":"local"}}]}'
        )
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        writer.write(head % len(body) + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    asked = MetadataSettings(
        metadata_source="kubelet", metadata_url=f"http://127.0.0.1:{port}", metadata_spread_ms=0
    )
    node = make(metadata=asked)
    node.write(node.file(), lines(0, 3))
    await node.start()
    learning = asyncio.create_task(node.collector.metadata.run())
    async with asyncio.timeout(10):
        while not node.collector.metadata.pods:
            await asyncio.sleep(0.01)
    await node.pass_time(3)
    learning.cancel()
    await asyncio.wait([learning])
    server.close()
    (meta,) = [meta for batch in await node.batches() for meta in batch.metas]
    assert (meta.pod_uid, meta.labels) == ("uid-api-0", {"app": "api"})


# -- health


async def test_an_outage_asks_for_no_restart_but_a_topic_that_swallows_does(make: Make) -> None:
    node = make(stuck_ms=60_000, spool_after_ms=1_000)
    topic = HeldTopic(node.topic_folder)
    node.open_topic = lambda: topic
    node.write(node.file(), lines(0, 3))
    await node.start()
    await node.pass_time(5, acknowledged=False)
    assert node.collector.status()["healthy"]
    topic.trouble = "kafka is away"
    await node.pass_time(90, acknowledged=False)
    assert node.collector.status()["healthy"]
    topic.trouble = ""
    assert not node.collector.status()["healthy"]
    await topic.release()
    await node.pass_time(5)
    assert node.collector.status()["healthy"]
    node.now += 61 * SECOND  # nothing has turned meanwhile
    assert not node.collector.status()["healthy"]


# -- partitions

NOW_NS = 1_700_000_000 * SECOND


def test_more_partitions_are_used_by_lines_from_their_time_on() -> None:
    entries = in_use(2, "8@2030-01-01T00:00:00Z", (), 0)
    assert entries == ((0, 2), (1_893_456_000 * SECOND, 8))
    placement = Placement("c", "n", entries, 8)
    old, new = line_time_ns(b"2029-12-31T23:59:59Z x"), line_time_ns(b"2030-01-01T00:00:00Z x")
    assert {placement.of_file(f"uid-{i}", old) for i in range(99)} <= {0, 1}
    assert {placement.of_file(f"uid-{i}", new) for i in range(99)} == set(range(8))
    assert {placement.of_file(f"uid-{i}", 0) for i in range(99)} <= {0, 1}
    assert placement.reachable() == tuple(range(8))


@pytest.mark.parametrize(
    ("setting", "later", "known", "told"),
    [
        (3, "", [(0, 2)], "contradict"),
        (2, "", [(0, 2), (9, 4)], "contradict"),
        (2, "", [(0, 2), (2 * NOW_NS, 4)], "contradict"),
        (2, "4@2030-01-01T00:00:00Z", [(0, 2), (NOW_NS, 4)], "contradict"),
        (2, "5@1970-01-02T00:00:00Z", [(0, 2), (NOW_NS, 4)], "contradict"),
        (2, "3@1970-01-01T00:00:01Z,4@1970-01-02T00:00:00Z", [(0, 2), (NOW_NS, 4)], "contradict"),
        (4, "2@2030-01-01T00:00:00Z", [], "must grow"),
        (2, "4@2031-01-01T00:00:00Z,8@2030-01-01T00:00:00Z", [], "must grow"),
        (2, "4@2030-01-01T00:00:00", [], "expected COUNT@TIME"),
        (2, "four", [], "expected COUNT@TIME"),
    ],
)
def test_a_list_of_partitions_that_would_move_files_is_refused(
    setting: int, later: str, known: list[tuple[int, int]], told: str
) -> None:
    with pytest.raises(SettingError, match=told):
        in_use(setting, later, known, NOW_NS)


def test_a_node_that_was_off_takes_up_an_entry_from_its_start_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    later = "4@2023-01-01T00:00:00Z"
    known: tuple[tuple[int, int], ...] = ((0, 2),)
    for setting in (0, 2):
        assert in_use(setting, later, known, NOW_NS) == ((0, 2), (NOW_NS, 4))
    assert "an entry of later_partitions came after its time" in caplog.text
    known = ((0, 2), (NOW_NS, 4))
    caplog.clear()
    assert in_use(0, later, known, NOW_NS + SECOND) == known  # and so at each later start
    assert in_use(0, f"{later},8@2030-01-01T00:00:00Z", known, NOW_NS + SECOND) == (
        *known,
        (1_893_456_000 * SECOND, 8),
    )
    assert caplog.text == ""
    placement = Placement("c", "n", known, 8)
    before, after = line_time_ns(b"2023-06-01T00:00:00Z x"), NOW_NS
    assert {placement.of_file(f"uid-{i}", before) for i in range(99)} == {0, 1}
    assert {placement.of_file(f"uid-{i}", after) for i in range(99)} == set(range(4))


def test_a_node_that_was_off_for_several_entries_takes_up_the_last() -> None:
    later = "4@2023-01-01T00:00:00Z,6@2023-02-01T00:00:00Z"
    known = in_use(2, later, [(0, 2)], NOW_NS)
    assert known == ((0, 2), (NOW_NS, 4), (NOW_NS, 6))
    assert in_use(2, later, known, NOW_NS + SECOND) == known
    placement = Placement("c", "n", known, 8)
    assert {placement.of_file(f"uid-{i}", NOW_NS) for i in range(99)} == set(range(6))


def test_the_number_of_the_first_start_stays_in_use() -> None:
    assert in_use(0, "", (), 0) is None
    assert in_use(0, "", [(0, 6)], 0) == ((0, 6),)
    assert in_use(0, "9@2030-01-01T00:00:00Z", [(0, 6)], 0) == ((0, 6), (1_893_456_000 * SECOND, 9))


@pytest.mark.parametrize(
    ("text", "second"),
    [
        (b"2024-03-01T00:00:01.123456789Z stdout F x", 1_709_251_201),
        (b"2024-03-01T01:00:01+01:00 stdout F x", 1_709_251_201),
        (b'{"log":"x","stream":"stdout","time":"2024-03-01T00:00:01.5Z"}', 1_709_251_201),
        (b"no time at all", 0),
        (b"2024-03-01T00:00:01 without a zone", 0),
        (b"\xff\xfe", 0),
    ],
)
def test_the_time_of_a_first_line_is_found_or_0(text: bytes, second: int) -> None:
    assert line_time_ns(text) == second * SECOND
