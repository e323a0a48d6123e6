"""What runs beside the way of the lines goes on after any error, and says what it was."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from collector import run
from collector.collect import Collector
from collector.errors import TopicUnavailable


class Failing:
    """Stands for a collector: what it is asked to do fails in turn, and then is done."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.failures: list[Exception] = []
        self.metadata = self
        self.run = self.learn_limits = self._do
        self.failed = self.failures.append

    async def _do(self) -> None:
        await asyncio.sleep(0)
        if self._errors:
            raise self._errors.pop(0)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made; none takes any time."""
    made: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        if seconds:
            made.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", noted)
    return made


@pytest.mark.parametrize(
    ("task", "errors", "paused"),
    [
        (run._ask_for_limits, [KeyError("min"), TopicUnavailable("away"), ValueError()], 3),
        (run._learn_labels, [RuntimeError("x"), ExceptionGroup("y", [KeyError()])], 2),
    ],
)
async def test_a_task_beside_begins_again_after_any_error(
    task: Callable[[Any], Any],
    errors: list[Exception],
    paused: int,
    pauses: list[float],
    caplog: pytest.LogCaptureFixture,
) -> None:
    failing = Failing(*errors)
    await task(cast(Collector, failing))
    assert len(pauses) == paused
    if task is run._ask_for_limits:
        assert caplog.text.count("cannot learn what the topic takes") == 2
    else:
        assert failing.failures == errors
