"""What `make` says on a machine that cannot make the environment: one line of what, one of what to do."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOO_OLD = '#!/bin/sh\nif [ "$1" = --version ]; then echo Python 3.9.2; exit 0; fi\nexit 1\n'
NO_ENSUREPIP = (
    "#!/bin/sh\n"
    'case "$2" in\n'
    "  *ensurepip*) exit 1;;\n"
    "  *venv*) echo python3.12-venv;;\n"
    "esac\n"
)  # fmt: skip


def environment_made_by(python3: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs the rule that makes `.venv`, where `python3` is the only Python, and neither apt nor sudo is there."""
    programs = folder / "bin"
    programs.mkdir()
    fake = programs / "python3"
    fake.write_text(python3)
    fake.chmod(0o755)
    (programs / "id").symlink_to(shutil.which("id") or "/usr/bin/id")
    make = shutil.which("make")
    assert make is not None, "this suite is started by make"
    return subprocess.run(
        [make, "-f", str(ROOT / "Makefile"), ".venv/bin/python"],
        cwd=folder,
        env={"PATH": str(programs)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize(
    ("python3", "what", "hint"),
    [
        (TOO_OLD, "dmq needs Python 3.11 or newer; found: Python 3.9.2", "make PYTHON=/path/to/python3.11"),
        (NO_ENSUREPIP, "python3 cannot make a virtual environment", "sudo apt-get install python3.12-venv"),
    ],
)
def test_what_is_missing_is_named_with_the_way_to_get_it(tmp_path: Path, python3: str, what: str, hint: str) -> None:
    done = environment_made_by(python3, tmp_path)
    assert done.returncode != 0
    said = done.stderr.splitlines()
    assert what in said[0]
    assert hint in said[1]
    assert not (tmp_path / ".venv").exists()
