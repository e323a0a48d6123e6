"""Each extra of the package, installed alone with its pins, starts the commands that it is for.

The wheel is built as for a release; a command whose extra is missing says what to install.
"""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import uv

from query_api.command.cli import PROCESSES
from tests.real_parts.guard import ROOT

pytestmark = pytest.mark.real  # installs packages, and starts each command

UV = uv.find_uv_bin()
Installed = Callable[[str], Path]

# extra -> packages of ours of which it can import every module
WHOLE = {
    "": (),
    "collector": ("collector",),
    "indexer": ("collector", "indexer"),
    "query-api": ("query_api",),
    "all": ("collector", "indexer", "query_api"),
}
ASKING = ("search", "gaps", "streams", "status", "delete", "deletions", "inspect")
IMPORT_ALL = """\
import importlib, pkgutil, sys
for package in map(importlib.import_module, sys.argv[1:]):
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(found.name)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Gives the folder of commands of an environment that has one extra of the wheel alone."""
    folder = tmp_path_factory.mktemp("extras")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder), cwd=ROOT)
    (wheel,) = folder.glob("*.whl")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    made: dict[str, Path] = {}

    def install(extra: str) -> Path:
        if extra not in made:
            environment = folder / (extra or "none")
            run(UV, "venv", "--python", sys.executable, str(environment), cwd=folder)
            wanted = environment / "wanted.txt"
            name = f"everyline[{extra}]" if extra else "everyline"
            wanted.write_text(f"{name} @ {wheel.as_uri()} --hash=sha256:{digest}\n")
            run(
                UV, "pip", "install", "--python", str(environment / "bin" / "python"),
                "--require-hashes", "--requirements", str(wanted),
                "--constraints", str(ROOT / "requirements" / "run.txt"), cwd=folder,
            )  # fmt: skip
            made[extra] = environment / "bin"
        return made[extra]

    return install


def run(*words: str, cwd: Path) -> None:
    done = subprocess.run(words, cwd=cwd, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(words)}:\n{done.stdout}{done.stderr}"


def started(folder: Path, command: str, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run a command of an environment as if it were on a machine of its own."""
    environ = {**os.environ, "PYTHONWARNINGS": "error"}
    for name in ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE"):
        environ.pop(name, None)
    return subprocess.run(
        [folder / command, *words],
        cwd=folder, env=environ, check=False, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("extra", WHOLE)
def test_an_extra_alone_starts_its_commands(installed: Installed, extra: str) -> None:
    folder = installed(extra)
    commands = [name for name, process in PROCESSES.items() if process.extra == extra]
    for command in commands or ASKING:
        done = started(folder, "everyline", command, "--help")
        assert (done.returncode, done.stderr) == (0, ""), command
        assert done.stdout.startswith(f"usage: everyline {command}")
    done = started(folder, "python", "-c", IMPORT_ALL, *WHOLE[extra])
    assert (done.returncode, done.stderr) == (0, "")


KAFKA = ("--topic", "kafka://127.0.0.1:1/logs", "--state", "state", "--listen", "127.0.0.1:0")
MISSING = {
    # words of a command -> what they need of which extra
    ("collector", *KAFKA): ("aiokafka", "collector"),
    ("indexer", "--help"): ("pyarrow", "indexer"),
    ("keeper", "--help"): ("pyarrow", "indexer"),
    ("ledger", "--help"): ("pyarrow", "indexer"),
    ("query", "--help"): ("uvicorn", "query-api"),
    ("up",): ("deltalake", "all"),
    ("deletions", "--bucket", "s3://logs"): ("boto3", "query-api"),
    ("inspect", "segment", "some.parquet"): ("pyarrow", "query-api"),
}


@pytest.mark.parametrize("words", MISSING, ids=lambda words: words[0])
def test_a_command_whose_extra_is_missing_says_what_to_install(
    installed: Installed, words: tuple[str, ...]
) -> None:
    package, extra = MISSING[words]
    done = started(installed(""), "everyline", *words)
    assert done.stderr == (
        f"everyline: {words[0]} needs the package '{package}', which is not installed: "
        f"pip install 'everyline[{extra}]'\n"
    )
    assert (done.returncode, done.stdout) == (1, "")
