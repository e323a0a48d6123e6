"""The cache of compiled kernels: it is left behind once a value in one of them may be another."""

import ast
from pathlib import Path

from indexer import kernels
from tests.real_parts.guard import ROOT


def constants_of_ours(path: Path) -> set[Path]:
    """The files of which a module imports constants."""
    return {
        ROOT / f"{node.module.replace('.', '/')}.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module
        if node.module.split(".")[0] in {"collector", "indexer", "query_api"}
        if any(alias.name.isupper() for alias in node.names)
    }


def test_the_cache_depends_on_each_file_whose_constants_a_kernel_may_hold() -> None:
    files = [
        path for package in ("indexer", "query_api") for path in (ROOT / package).rglob("*.py")
    ]
    with_kernels = [path for path in files if "\n@compiled\n" in path.read_text()]
    held = {constant for path in with_kernels for constant in constants_of_ours(path)}
    assert held <= {*kernels.sources()}
    assert ROOT / "collector" / "token_bytes.py" in held
