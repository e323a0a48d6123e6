"""The tree keeps its own rules: sizes, names, words, and the direction of imports.

A rule that a linter can hold is in pyproject.toml; here are those that only this project has.
"""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real_parts.guard import ROOT

PACKAGES = ("collector", "indexer", "query_api")

# Package -> what it may import of the packages before it. These modules are the contracts.
# What a package writes or raises is its contract, and the interfaces that it shares.
COLLECTOR_CONTRACTS = {
    f"collector.{name}" for name in ("range", "batch", "topic", "security", "process", "errors")
}
INDEXER_CONTRACTS = {
    f"indexer.{name}"
    for name in (
        "bucket", "table", "schema", "coverage", "entries", "ledger", "ledger_table", "errors",
        "request", "token_filter",
        "streams", "selector", "kernels", "ranged_file",
    )
}  # fmt: skip
MAY_IMPORT: dict[str, set[str]] = {
    "collector": set(),
    "indexer": COLLECTOR_CONTRACTS,
    "query_api": COLLECTOR_CONTRACTS | INDEXER_CONTRACTS,
}

# These two put the whole together: inside a function they may import any package's run module.
COMPOSITION_ROOTS = {"query_api/command/cli.py", "query_api/local/up.py"}
RUN_MODULES = {f"{package}.run" for package in PACKAGES}

# What a process on each node must not pay for.
HEAVY = {"boto3", "deltalake", "fastapi", "numba", "numpy", "polars", "pyarrow", "pydantic"}

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


def tree() -> list[Path]:
    """All files that are, or would be, in version control."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    paths = (ROOT / name for name in listed.split("\0") if name)
    return sorted(path for path in paths if path.is_file())


def python_files(*packages: str) -> list[Path]:
    files = [path for path in tree() if path.suffix == ".py"]
    return [path for path in files if not packages or _name(path).split("/")[0] in packages]


def imports(module: ast.AST) -> Iterator[tuple[str, int]]:
    """Each dotted name that a module imports, also by `import_module("...")`, with its line."""
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if node.module in PACKAGES:
                    yield f"{node.module}.{alias.name}", node.lineno
                else:
                    yield node.module or "", node.lineno
        elif isinstance(node, ast.Call) and node.args:
            name = ast.unparse(node.func).rpartition(".")[2]
            first = node.args[0]
            if name in {"import_module", "__import__"} and isinstance(first, ast.Constant):
                yield str(first.value), node.lineno


def forbidden_imports(path: Path) -> Iterator[str]:
    name = _name(path)
    package = name.split("/")[0]
    module = ast.parse(path.read_text(), name)
    # What a function imports is imported later; all else runs with the module.
    at_top = [node for node in module.body if not isinstance(node, FUNCTIONS)]
    eager = {line for node in at_top for _, line in imports(node)}
    for imported, line in imports(module):
        owner = imported.split(".")[0]
        if owner not in PACKAGES or owner == package:
            continue
        if any(f"{imported}.".startswith(f"{allowed}.") for allowed in MAY_IMPORT[package]):
            continue
        if name in COMPOSITION_ROOTS and imported in RUN_MODULES and line not in eager:
            continue
        yield f"{name}:{line} imports {imported}"


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_no_function_is_longer_than_a_page() -> None:
    long = [
        f"{_name(path)}:{node.lineno} {node.name}: {length} lines"
        for path in python_files()
        for node in ast.walk(ast.parse(path.read_text(), str(path)))
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
    silent = [
        _name(path)
        for path in python_files()
        if not ast.get_docstring(ast.parse(path.read_text(), str(path)))
    ]
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


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_against_the_flow_and_only_into_contracts(package: str) -> None:
    found = [line for path in python_files(package) for line in forbidden_imports(path)]
    assert not found, "\n".join(found)


def test_the_collector_names_no_heavy_library() -> None:
    found = [
        f"{_name(path)}:{line} imports {name}"
        for path in python_files("collector")
        for name, line in imports(ast.parse(path.read_text(), str(path)))
        if name.split(".")[0] in HEAVY
    ]
    assert not found, "\n".join(found)


def test_a_running_collector_has_loaded_no_heavy_library() -> None:
    names = [_name(path)[:-3].replace("/", ".") for path in python_files("collector")]
    modules = [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]
    code = (
        "import importlib, json, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout))
    assert "collector" in loaded
    assert not loaded & {*HEAVY, "indexer", "query_api"}
