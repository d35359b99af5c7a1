"""A new method, network or task is one new file: in the package, or one's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import parts2whole as p2w
from parts2whole.contracts import MethodContract, NetworkContract, TaskContract, promises

from .new_files import CLASSES, FILES

SOURCE = Path(p2w.__file__).parent
SUITES = {"methods": MethodContract, "networks": NetworkContract, "tasks": TaskContract}

NOT_ASKED = {
    "methods": {"test_a_reconstruction_is_an_image_of_the_whole"},
    "networks": set(),
    "tasks": {"test_rows_are_independent_where_it_says_so", "test_what_can_not_be_judged_has_a_loss"},
}


def test_a_file_in_its_folder_is_all_that_a_new_member_needs(tmp_path):
    package = tmp_path / "parts2whole"
    shutil.copytree(SOURCE, package, ignore=shutil.ignore_patterns("__pycache__"))
    for folder, text in FILES.items():
        (package / folder / "somebody_elses.py").write_text(text)
        shutil.copy(Path(__file__).with_name(f"test_{folder}.py"), tmp_path)
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    wanted = " or ".join(f"Test{name}" for name in CLASSES.values())
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", wanted, "-rA"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    for folder, name in CLASSES.items():
        passed = [line.split("::") for line in done.stdout.splitlines() if line.startswith("PASSED")]
        kept = {words[2] for words in passed if words[1] == f"Test{name}"}
        assert set(promises(SUITES[folder])) - kept == NOT_ASKED[folder]
