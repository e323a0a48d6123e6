"""The tree keeps its own rules: sizes, names and words.

A rule that a linter can hold is in pyproject.toml; here are those that only this project has.
"""

import ast
import os
import re
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

from tests.real_parts.guard import ROOT

PACKAGES = ("collector", "indexer", "query_api")

VAGUE_NAMES = {"base", "common", "core", "helper", "helpers", "manager", "misc", "shared"}
VAGUE_NAMES |= {"util", "utils"}

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
FUNCTION_LINES = 69
MODULE_LINES = 450
LINE_CHARACTERS = 100
SOURCES = {".css", ".html", ".js", ".py", ".sh"}

# Places that exist on one machine only, hosts of package indexes, and talk about other trackers.
# Written so that no pattern matches itself.
BANNED = {
    "a path of one machine": r"(?<![\w.])[/](?:work|home|tmp/w)[/]",
    "a path out of the tree": r"[.][.]/shared\b",
    "a package index": (
        r"\b(?:py[p]i[.]org|py[t]honhosted|repo1?[.]mave[n]|repo[.]mave[n][.]apache"
        r"|proxy[.]golan[g]|registry[.]np[m]js|stati[c][.]crates)"
    ),
    "a word of trackers": r"(?i)\biss[u]es?\b",
}


@cache
def tree() -> list[Path]:
    """All files that are, or would be, in version control: those that .gitignore does not name."""
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    names = [".git", *(line.strip("/") for line in ignored if not line.startswith("#"))]
    found = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [each for each in folders if not any(fnmatch(each, name) for name in names)]
        found += [Path(folder, each) for each in files if each not in names]
    return sorted(found)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def python_files(*packages: str) -> list[Path]:
    files = [path for path in tree() if path.suffix == ".py"]
    return [path for path in files if not packages or _name(path).split("/")[0] in packages]


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_no_function_is_longer_than_a_page() -> None:
    long = [
        f"{_name(path)}:{node.lineno} {node.name}: {length} lines"
        for path in python_files()
        for node in ast.walk(parsed(path))
        if isinstance(node, FUNCTIONS)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES
    ]
    assert not long, "\n".join(long)


def test_no_module_is_longer_than_can_be_read_at_once() -> None:
    lengths = {_name(path): len(path.read_text().splitlines()) for path in python_files(*PACKAGES)}
    long = [f"{name}: {lines} lines" for name, lines in lengths.items() if lines > MODULE_LINES]
    assert not long, "\n".join(long)


def test_no_line_is_wider_than_two_columns_of_a_screen_allow() -> None:
    wide = [
        f"{_name(path)}:{number}: {len(line)} characters"
        for path in tree()
        if path.suffix in SOURCES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > LINE_CHARACTERS
    ]
    assert not wide, "\n".join(wide)


def test_each_module_says_what_it_is() -> None:
    silent = [_name(path) for path in python_files() if not ast.get_docstring(parsed(path))]
    assert not silent, "\n".join(silent)


def test_no_name_is_vague() -> None:
    vague = [
        _name(path) for path in tree() if VAGUE_NAMES & {path.stem, *Path(_name(path)).parent.parts}
    ]
    assert not vague, "\n".join(vague)


@pytest.mark.parametrize("what", BANNED)
def test_the_tree_does_not_name(what: str) -> None:
    pattern = re.compile(BANNED[what])
    found = []
    for path in tree():
        if path.name == "LICENSE":
            continue  # not our words
        try:
            lines = path.read_text().splitlines()
        except UnicodeDecodeError:
            continue  # not text
        found += [f"{_name(path)}:{n}: {x}" for n, x in enumerate(lines, 1) if pattern.search(x)]
    assert not found, "\n".join(found)
