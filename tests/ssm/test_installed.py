# SPDX-License-Identifier: Apache-2.0
"""Another distribution with a package `ssm` in the same folder: the import says so."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cmake import ROOT


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A folder of packages in which another project's errors.py has taken the place of ours."""
    shutil.copytree(
        ROOT / "ssm", tmp_path / "ssm", ignore=shutil.ignore_patterns("src", "*.so", "__pycache__")
    )
    (tmp_path / "ssm/errors.py").write_text("class StateSpaceError(Exception): ...\n")
    return tmp_path


def import_error(folder: Path) -> str:
    """What `import ssm` says, from that folder; without site, which would find the checkout."""
    code = f"import sys; sys.path.insert(0, {str(folder)!r}); import ssm"
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", code], capture_output=True, text=True, check=False, cwd=folder
    )
    assert done.returncode == 1
    return done.stderr.splitlines()[-1]


def test_the_other_distribution_is_named(mixed: Path) -> None:
    info = mixed / "ssm_python-2.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ssm-python\nVersion: 2.3\n")
    (info / "RECORD").write_text("ssm/errors.py,,\nssm/__init__.py,,\n")
    said = import_error(mixed)
    assert said.startswith("ImportError: ssm-python 2.3 has put files into the package 'ssm' as well")
    assert "`pip uninstall ssm-python ssm-pool`, then `pip install ssm-pool`" in said
    assert "cannot import name" in said or "No module named" in said


def test_other_failures_stay_as_they_are(mixed: Path) -> None:
    said = import_error(mixed)
    assert "as well" not in said
    assert said.startswith(("ImportError: ", "ModuleNotFoundError: "))
