"""What was given on the command line: refused, or understood, before any service is asked."""

import json

import pytest

from query_api.command.answer_text import visible, visible_json
from query_api.command.cli import main
from query_api.command.given import with_denials, with_times

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


@pytest.mark.parametrize(
    ("words", "query"),
    [
        (["worker", "-healthz"], "worker -healthz"),
        (['-healthz "connection refused"'], '-healthz "connection refused"'),
        (["-fatal worker"], "-fatal worker"),
        (["-debug"], "-debug"),
        (["-oops", "-hello"], "-oops -hello"),
        (["--", "-f", "-url"], "-f -url"),
        (["-a", "--pod", "x", "-ojson", "-b"], "-a -b"),
    ],
)
def test_a_word_that_a_query_denies_is_no_option(
    capsys: pytest.CaptureFixture[str], words: list[str], query: str
) -> None:
    given = with_denials(with_times(["search", *words]))
    kept = [word for word in given[1:] if word.startswith(" ")]
    assert all(word[1:] in words for word in kept)
    if "--pod" not in words:  # the same words, as a query that is understood
        assert main(["explain", *words], NOBODY) == 0
        first = capsys.readouterr().out.splitlines()[0]
        assert first == ("all of" if " " in query else "not")


def test_a_misspelt_option_is_no_part_of_a_query(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["search", "x", "--namspace", "y"], NOBODY)
    assert ended.value.code == 2
    assert "--namspace" in capsys.readouterr().err


def test_since_is_how_long_ago() -> None:
    assert with_times(["search", "--since", "15m", "x"]) == ["search", "--from=-15m", "x"]


@pytest.mark.parametrize("url", ["http://127.0.0.1:abc", "http://", "ftp://x", "http://h:0"])
def test_a_url_that_is_none_is_named(capsys: pytest.CaptureFixture[str], url: str) -> None:
    assert main(["search", "x", "--url", url], {}) == 1
    assert f"{url!r} is not a URL" in capsys.readouterr().err


def test_a_word_that_is_not_utf_8_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "caf\udce9"], NOBODY) == 2
    assert "caf\\xe9 is not UTF-8" in capsys.readouterr().err


def test_nothing_that_a_terminal_acts_on_is_left_in_what_is_shown() -> None:
    text = "a\x1b[31m\x07\x7f\x9b\u202eb\u2028c\u200bd\ufeff\u2066e\tf\xe9\u65e5"
    shown = "a\\x1b[31m\\x07\\x7f\\x9b\\u202eb\\u2028c\\u200bd\\ufeff\\u2066e\tf\xe9\u65e5"
    assert visible(text) == shown
    body = visible_json(json.dumps(text, ensure_ascii=False))
    assert json.loads(body) == text
    assert not {"\x7f", "\x9b", "\u202e", "\u2028", "\u200b"} & set(body)
