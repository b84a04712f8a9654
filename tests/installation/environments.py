"""Clean environments: an interpreter, what pip puts there and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.missing import missing

REPOSITORY = Path(__file__).parents[2]
CONSTRAINTS = REPOSITORY / "constraints.txt"
SOURCES = ("nss_train", "tasks", "pyproject.toml", "README.md", "LICENSE")
TORCH = "torch==2.13.0"
INSTALL_S = 500
COMMAND_S = 300


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment:
    """A virtual environment without pip, as production images have it."""

    folder: Path

    @classmethod
    def make(cls, folder: Path, python: Path) -> Environment:
        command = [str(python), "-m", "venv", "--without-pip", str(folder)]
        subprocess.run(command, check=True, timeout=COMMAND_S)
        return cls(folder=folder)

    @property
    def python(self) -> Path:
        return self.program("python")

    def program(self, name: str) -> Path:
        return self.folder / "bin" / name

    def install(self, *arguments: str) -> float:
        """Install these with pip; return the seconds that this takes."""
        began = time.monotonic()
        constraint = ("--constraint", str(CONSTRAINTS))
        pip("--python", str(self.python), "install", "--quiet", "--no-compile", *constraint, *arguments)
        return time.monotonic() - began

    def run(
        self, *command: str, home: Path, settings: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run one of its programs with settings of its own, away from the sources."""
        return subprocess.run(
            [str(self.program(command[0])), *command[1:]],
            cwd=home,
            env=self.variables(home) | (settings or {}),
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_S,
        )

    def variables(self, home: Path) -> dict[str, str]:
        """Return the variables of a user who has set nothing."""
        path = f"{self.folder / 'bin'}:/usr/bin:/bin"
        return {"PATH": path, "HOME": str(home), "NSS_TRAIN_HOME": str(home), "OMP_NUM_THREADS": "1"}

    def packages(self) -> set[str]:
        """Return the names of all that is installed, in lower case and with hyphens."""
        found = self.folder.glob("lib/python*/site-packages/*.dist-info")
        return {info.name.split("-")[0].lower().replace("_", "-") for info in found}

    def megabytes(self) -> float:
        files = (file for file in self.folder.rglob("*") if file.is_file() and not file.is_symlink())
        return sum(file.stat().st_size for file in files) / 1e6


def pip(*arguments: str) -> None:
    """Run pip; when it fails, raise with its output."""
    command = [sys.executable, "-m", "pip", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INSTALL_S)
    assert done.returncode == 0, done.stderr[-2000:]


def build_wheel(folder: Path) -> Path:
    """Build the wheel of these sources in a copy, so that other files of the checkout do not get into it."""
    source = folder / "source"
    source.mkdir(parents=True)
    for name in SOURCES:
        there = REPOSITORY / name
        if there.is_dir():
            shutil.copytree(there, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(there, source / name)
    pip("wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(source))
    (wheel,) = folder.glob("*.whl")
    return wheel


def interpreter(version: str) -> Path:
    """Return a Python of this version; without one the test is skipped, or fails under CI."""
    for found in (shutil.which(f"python{version}"), *_of_pyenv(version)):
        if found is not None and _is(Path(found), version):
            return Path(found)
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return Path(sys.executable)
    raise missing(f"no python{version} on the PATH or in pyenv")


def _of_pyenv(version: str) -> list[str]:
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    return sorted(map(str, root.glob(f"versions/{version}.*/bin/python")), reverse=True)


def _is(python: Path, version: str) -> bool:
    """Tell whether it runs, and has this version: pyenv leaves names on the PATH that lead nowhere."""
    command = [str(python), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=COMMAND_S)
    return done.returncode == 0 and done.stdout.strip() == version
