"""The house keeps its plan: which room may import which, what each promises, and what stays light.

A room is a folder of a package, or a module at its top. Imports run from where a line is answered
back to where it is read, and between packages only into the rooms that are contracts.
"""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

from tests.real_parts.guard import ROOT

PLAN: Mapping[str, Mapping[str, str]] = {
    "collector": {
        # room -> rooms of its package that it may import
        "errors": "",
        "checksum": "",
        "levels": "",
        "durable": "",
        "file_names": "",
        "process": "errors",
        "token_bytes": "",
        "watched_files": "",
        "wire": "checksum errors",
        "topic": "checksum durable errors file_names process watched_files",
        "labels": "checksum errors file_names process wire",
        "settings": "labels process topic",
        "files": "checksum durable errors file_names settings wire",
        "policy": "checksum errors levels process token_bytes watched_files wire",
        "ship": "durable errors file_names topic wire",
        "inventory": "files ship wire",
        "read": "files policy ship wire",
        "metrics": "",
        "collect": "durable files inventory labels metrics file_names policy read settings ship "
        "topic",
        "run": "collect durable errors metrics file_names process settings topic",
    },
    "indexer": {
        "errors": "",
        "object_names": "",
        "schema": "",
        "kernels": "",
        "allocator": "",
        "settings": "",
        "metrics": "",
        "times": "",
        "equal_runs": "",
        "transition": "errors",
        "store": "errors object_names times",
        "parse": "kernels schema",
        "query": "errors kernels schema",
        "segment": "errors kernels parse equal_runs schema store times",
        "table": "errors object_names query schema segment store",
        "ledger": "allocator errors object_names schema store table times",
        "deletable": "query table times",
        "keeper": "deletable errors equal_runs ledger object_names schema segment store table "
        "times transition",
        "trim": "ledger",
        "assemble": "errors ledger parse segment table times trim",
        "ownership": "assemble table transition",
        "consume": "assemble ledger ownership table",
        "recall": "assemble ledger times",
        "suspect": "assemble errors ledger ownership parse table",
        "share": "settings",
        "upload": "assemble object_names segment store table",
        "commit": "assemble errors ledger ownership parse recall settings store suspect table "
        "times upload",
        "index": "assemble commit consume errors ledger metrics object_names ownership settings "
        "share store",
        "compile": "parse schema segment",
        "run": "allocator errors index metrics settings store",
    },
    "query_api": {
        "errors": "",
        "metrics": "",
        "settings": "",
        "times": "errors",
        "scan": "errors",
        "completeness": "scan",
        "deletion": "errors",
        "questions": "completeness errors metrics scan settings times",
        "loki": "completeness errors questions scan",
        "http": "completeness deletion errors loki metrics questions settings",
        "run": "http settings",
        "command": "deletion errors times",
        "local": "errors times",
    },
}

CONTRACTS: Mapping[str, Mapping[str, str]] = {
    # package -> package before it -> rooms of that, or single modules, which are its contract
    "collector": {},
    "indexer": {"collector": "checksum durable errors levels process token_bytes topic wire"},
    "query_api": {
        # What a collector keeps on its disk can be looked into: one module writes and reads it.
        "collector": "checksum durable errors files.checkpoint levels process token_bytes "
        "topic wire",
        "indexer": "deletable errors ledger object_names query schema segment store table times",
    },
}

# The command line starts any role: inside a function, it may import its module.
STARTS_ROLES = "query_api/command/cli.py"
ROLES = {
    "collector.run", "indexer.run", "indexer.keeper.run", "indexer.keeper.ledger_command",
    "indexer.keeper.retire_command",
}  # fmt: skip
ROLES |= {"query_api.run", "query_api.local.up"}

FILES_MAX = 15
FLOORS_MAX = 12

# What a process on each node must not pay for.
HEAVY = {"boto3", "deltalake", "fastapi", "numba", "numpy", "polars", "pyarrow", "pydantic"}

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def modules(package: str) -> dict[str, Path]:
    """The modules of a package by dotted name; a room's ``__init__`` has the room's name."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = {package: modules(package) for package in PLAN}
EVERY = {name: path for found in MODULES.values() for name, path in found.items()}


def room_of(module: str) -> str:
    """The room of a module: the second word of its name."""
    return module.split(".")[1]


@cache
def imports(path: Path) -> tuple[tuple[str, int, bool], ...]:
    """Each module of ours, or library, that a file imports, the line, and whether at its start."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[tuple[str, int, bool]]:
    tree = ast.parse(path.read_text(), str(path))
    later = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, FUNCTIONS)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        at_start = id(node) not in later
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno, at_start
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in EVERY else node.module or "", node.lineno, at_start
        elif isinstance(node, ast.Call) and node.args:
            name = ast.unparse(node.func).rpartition(".")[2]
            first = node.args[0]
            if name in {"import_module", "__import__"} and isinstance(first, ast.Constant):
                yield str(first.value), node.lineno, at_start


def our_imports(package: str) -> Iterator[tuple[str, str, int, bool]]:
    """Importing module, imported module, line, and whether at its start; of ours alone."""
    for name, path in MODULES[package].items():
        for imported, line, at_start in imports(path):
            if imported.split(".")[0] in PLAN and imported not in PLAN:
                yield name, imported, line, at_start


def is_planned(importing: str, imported: str) -> bool:
    package, owner = importing.split(".")[0], imported.split(".")[0]
    mine, other = room_of(importing), room_of(imported)
    if package != owner:
        contract = CONTRACTS[package].get(owner, "").split()
        return other in contract or imported.removeprefix(f"{owner}.") in contract
    return mine == other or other in PLAN[package].get(mine, "").split()


@pytest.mark.parametrize("package", PLAN)
def test_each_room_imports_only_what_the_plan_allows(package: str) -> None:
    found = [
        f"{name}:{line} imports {imported}"
        for name, imported, line, at_start in our_imports(package)
        if not is_planned(name, imported)
        and not (EVERY[name] == ROOT / STARTS_ROLES and imported in ROLES and not at_start)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("package", PLAN)
def test_the_plan_allows_nothing_that_no_room_needs(package: str) -> None:
    used = {
        (room_of(name), room_of(imported))
        for name, imported, _, _ in our_imports(package)
        if imported.split(".")[0] == package
    }
    allowed = {(room, other) for room, others in PLAN[package].items() for other in others.split()}
    assert allowed <= used, f"no longer needed: {sorted(allowed - used)}"
    assert set(PLAN[package]) == {room_of(name) for name in MODULES[package] if "." in name}


@pytest.mark.parametrize("package", PLAN)
def test_rooms_stand_on_few_floors_and_in_no_circle(package: str) -> None:
    plan = PLAN[package]

    def floor(room: str, below: tuple[str, ...] = ()) -> int:
        assert room not in below, f"a circle of rooms: {' -> '.join((*below, room))}"
        return 1 + max((floor(other, (*below, room)) for other in plan[room].split()), default=0)

    assert max(map(floor, plan)) <= FLOORS_MAX


def test_no_two_modules_import_each_other() -> None:
    needs = {name: set[str]() for name in EVERY}
    for package in PLAN:
        for name, imported, _, _ in our_imports(package):
            needs[name].add(imported)
    while free := [name for name, needed in needs.items() if not needed & set(needs)]:
        for name in free:
            del needs[name]
    assert not needs, f"circles among {sorted(needs)}"


def test_each_room_says_what_it_promises_and_hands_nothing_on() -> None:
    for name, path in EVERY.items():
        if path.name == "__init__.py":
            (contract,) = ast.parse(path.read_text()).body
            assert isinstance(contract, ast.Expr), f"{name} holds more than its contract"
            assert ast.get_docstring(ast.parse(path.read_text())), f"{name} has no contract"


def test_each_thing_is_imported_from_the_module_that_defines_it() -> None:
    """Mypy refuses to import what a module has imported itself, unless it is listed for that."""
    assert not [name for name, path in EVERY.items() if "\n__all__" in path.read_text()]


def test_rooms_are_one_level_deep_and_can_be_seen_at_a_glance() -> None:
    for package in PLAN:
        for folder in {path.parent for path in MODULES[package].values()}:
            assert folder == ROOT / package or folder.parent == ROOT / package, folder
            files = [each for each in folder.glob("*.py") if each.name != "__init__.py"]
            if folder != ROOT / package:
                assert len(files) <= FILES_MAX, f"{folder} has {len(files)} files"


def test_nobody_but_the_command_line_imports_the_keeper() -> None:
    found = {
        name
        for package in PLAN
        for name, imported, _, _ in our_imports(package)
        if f"{imported}.".startswith("indexer.keeper.") and not name.startswith("indexer.keeper")
    }
    assert not found - {"query_api.command.cli"}


def test_the_collector_names_no_heavy_library() -> None:
    found = [
        f"{name}:{line} imports {library}"
        for name, path in MODULES["collector"].items()
        for library, line, _ in imports(path)
        if library.split(".")[0] in HEAVY
    ]
    assert not found, "\n".join(found)


def loaded_by(*names: str) -> set[str]:
    """What a new process has loaded once it has imported these modules."""
    code = (
        "import importlib, json, sys\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "print(json.dumps(sorted(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def test_a_running_collector_has_loaded_no_heavy_library() -> None:
    loaded = {name.split(".")[0] for name in loaded_by(*MODULES["collector"])}
    assert "collector" in loaded
    assert not loaded & {*HEAVY, "indexer", "query_api"}


@pytest.mark.parametrize("room", ["table", "ledger"])
def test_who_reads_the_table_or_the_ledger_loads_no_parser_and_no_compiler(room: str) -> None:
    loaded = loaded_by(
        *(name for name in MODULES["indexer"] if f"{name}.".startswith(f"indexer.{room}."))
    )
    assert f"indexer.{room}" in loaded
    assert not {name for name in loaded if name.startswith(("indexer.parse", "numba", "llvmlite"))}
