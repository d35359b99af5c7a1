"""Classes of one's own: named by a file or a module, found in other processes, and never imported for a file."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from parts2whole.methods.base import Method
from parts2whole.networks.base import Network
from parts2whole.own import OwnError, find_class, import_own, own_files, own_modules
from parts2whole.spec import SpecError, find_member, members, spec_from_dict

NETWORK = """
import dataclasses
import parts2whole as p2w

@dataclasses.dataclass(frozen=True)
class {name}(p2w.Network):
    '''A network of my own.'''
    width: int = 4

    def build_encoder(self, in_channels):
        return p2w.UNet3D(size="tiny").build_encoder(in_channels)
"""


def write(path: Path, name: str, text: str = NETWORK) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.format(name=name))
    return path


def test_a_class_is_named_by_its_file(tmp_path: Path) -> None:
    write(tmp_path / "nets.py", "NamedByFile")
    found = find_class(Network, "nets.py:NamedByFile", folder=tmp_path)
    assert found().width == 4
    assert find_class(Network, str(tmp_path / "nets.py")) is found  # the only one in its file
    assert find_member(Network, "NamedByFile") is found
    assert spec_from_dict({"class_path": "NamedByFile", "init_args": {"width": 3}}, Network) == found(width=3)
    assert own_files()["NamedByFile"] == str(tmp_path / "nets.py")


def test_a_class_is_named_by_its_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "own_package_a" / "nets.py", "NamedByModule")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = find_class(Network, "own_package_a.nets:NamedByModule")
    assert find_class(Network, "own_package_a.nets.NamedByModule") is found
    # A file that has been imported by one name isn't imported again by another.
    assert find_class(Network, str(tmp_path / "own_package_a" / "nets.py:NamedByModule")) is found
    assert "own_package_a.nets" in own_modules()


def test_a_file_that_is_imported_by_two_names_gives_one_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "own_module_b.py", "TwiceImported")
    import_own(file)
    monkeypatch.syspath_prepend(str(tmp_path))
    __import__("own_module_b")
    assert [one.__name__ for one in members(Network)].count("TwiceImported") == 1


def test_files_beside_it_can_be_imported(tmp_path: Path) -> None:
    write(tmp_path / "own_helper_c.py", "", "WIDTH = 7\n")
    write(tmp_path / "nets.py", "Beside", "from own_helper_c import WIDTH\n" + NETWORK)
    assert find_class(Network, f"{tmp_path}/nets.py:Beside")
    assert sys.modules["own_helper_c"].WIDTH == 7


def test_another_process_finds_the_class_by_itself(tmp_path: Path) -> None:
    file = write(tmp_path / "a folder" / "nets.py", "Sent")
    spec = find_class(Network, f"{file}:Sent")(width=5)
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer))"
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(spec), capture_output=True, check=True, cwd="/"
    )
    assert done.stdout.decode().strip() == "Sent(width=5)"


@pytest.mark.parametrize(
    ("text", "content", "message"),
    [
        ("none.py:Mine", None, r"there is no file /.*none\.py"),
        ("no_module_d.nets:Mine", None, r"no module no_module_d\.nets on the Python path; .*no_module_d/nets\.py"),
        ("a.py:Other", NETWORK, r"a\.py has no Network called Other; it has Named"),
        ("a.py:np", "import numpy as np", r"has no Network called np; it has no Network at all"),
        ("a.py", NETWORK + NETWORK.replace("{name}", "More"), r"has no Network to take; name one: a\.py:CLASS; it has More, Named"),
        ("a.py:Named", "import no_package_e", r"a\.py needs the package no_package_e, which isn't installed"),
        ("a.py:Named", "x = 1\ny = x / 0", r"a\.py can't be imported: ZeroDivisionError: division by zero \(line 2\)"),
        ("a.py:Named", "class X(:", r"a\.py can't be imported: SyntaxError: .*line 1"),
        ("a.py:Named", "import parts2whole as p2w\nclass {name}(p2w.Network): pass", r"Named isn't complete, a Network also needs build_encoder"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, content: str | None, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        write(tmp_path / "a.py", "Named", content)
    with pytest.raises(OwnError, match=message):
        find_class(Network, text)


def test_a_name_that_is_taken_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "nets.py", "UNet3D")
    try:
        with pytest.raises(SpecError, match="two classes are called UNet3D"):
            find_class(Network, f"{file}:UNet3D")
    finally:  # forget it, for the other tests
        import_own(file).UNet3D.__name__ = "_Forgotten"


def test_a_class_of_the_package_may_be_named_in_full() -> None:
    known = find_member(Method, "SimCLR")
    assert find_class(Method, "parts2whole.methods.simclr.SimCLR") is known
    assert find_class(Method, "SimCLR", folder=None) is known


def test_without_a_folder_nothing_is_imported(tmp_path: Path) -> None:
    file = write(tmp_path / "nets.py", "NeverImported", "raise SystemExit('imported')")
    with pytest.raises(SpecError, match="there is no Network called 'NeverImported'"):
        find_class(Network, f"{file}:NeverImported", folder=None)
