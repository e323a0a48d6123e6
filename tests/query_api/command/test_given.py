"""Options that are there and say nothing: refused before any service is asked."""

import pytest

from query_api.command.cli import main

NOBODY = {"EVERYLINE_URL": "http://127.0.0.1:1"}


@pytest.mark.parametrize("value", ["", " "])
@pytest.mark.parametrize(
    ("command", "option"),
    [
        *(("search", each) for each in ("namespace", "pod", "container", "node", "level")),
        ("search", "from"),
        ("search", "to"),
        *(("gaps", each) for each in ("namespace", "type", "state", "from")),
        *(("streams", each) for each in ("namespace", "node", "to")),
    ],
)
def test_an_empty_value_is_refused_by_its_name(
    capsys: pytest.CaptureFixture[str], command: str, option: str, value: str
) -> None:
    assert main([command, f"--{option}={value}"], NOBODY) == 2
    said = capsys.readouterr().err.splitlines()
    assert said == [
        f"everyline: --{option} is empty",
        "  give a value, or leave the option out",
    ]


def test_one_empty_value_among_others_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "--namespace", "shop", "--namespace", ""], NOBODY) == 2
    assert "--namespace is empty" in capsys.readouterr().err
