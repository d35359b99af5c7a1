"""Files are whole or not there, whoever else writes them, whatever fails; and nothing is written by hand."""

from __future__ import annotations

import ast
import csv
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

import parts2whole
from parts2whole.files import (
    DiskFullError,
    JsonError,
    read_json,
    replacing,
    sweep,
    this_process,
    write_bytes,
    write_json,
    write_rows,
    write_text,
)

SOURCE = Path(parts2whole.__file__).parent
ROUNDS, SIZE = 60, 300_000
ONE_FOLDER = settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)

WRITER = """
import sys
from pathlib import Path
from parts2whole.files import write_text
for _ in range(int(sys.argv[3])):
    write_text(Path(sys.argv[1]), sys.argv[2] * int(sys.argv[4]))
"""

KILLED = """
import os, signal, sys
from pathlib import Path
from parts2whole.files import replacing
with replacing(Path(sys.argv[1])) as beside:
    beside.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def run(code: str, *arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)])


def test_two_processes_that_write_one_path_never_leave_a_torn_file(tmp_path):
    path = write_text(tmp_path / "both", "a" * SIZE)
    writers = [run(WRITER, path, letter, ROUNDS, SIZE) for letter in "ab"]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        text = path.read_text()
        assert len(text) == SIZE
        assert len(set(text)) == 1
        seen |= set(text)
    assert [writer.returncode for writer in writers] == [0, 0]
    assert seen == {"a", "b"}
    assert list(tmp_path.iterdir()) == [path]


def test_threads_of_one_process_may_write_one_path(tmp_path):
    path = tmp_path / "both"
    with replacing(path) as first, replacing(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # the block of the second ended before that of the first
    assert list(tmp_path.iterdir()) == [path]
    failures = []

    def write(letter: str) -> None:
        try:
            for _ in range(20):
                write_text(path, letter * 1000)
        except OSError as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert path.read_text() in {"a" * 1000, "b" * 1000, "c" * 1000}


def write_and_fail(path: Path, error: BaseException, *, folder: bool = False) -> None:
    with replacing(path) as beside:
        write_text(beside / "deep" / "down" if folder else beside, "half")
        raise error


@pytest.mark.parametrize(
    "error", [ValueError("no"), KeyboardInterrupt(), PermissionError(errno.EACCES, "no")]
)
@pytest.mark.parametrize("folder", [False, True])
def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path, error, folder):
    path = write_text(tmp_path / "kept", "old")
    with pytest.raises(type(error)) as caught:
        write_and_fail(path, error, folder=folder)
    assert caught.value is error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_json_leaves_the_old_file(tmp_path):
    path = write_json(tmp_path / "a.json", {"a": [1, None]})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert read_json(path) == {"a": [1, None]}
    path.write_text("{")
    with pytest.raises(JsonError, match=r"a\.json is not JSON: Expecting property name"):
        read_json(path)
    path.write_text("[" * 100_000)
    with pytest.raises(JsonError, match=r"a\.json is not JSON"):
        read_json(path)


def chained() -> Exception:
    """What torch makes of a full disk: an error that says nothing, raised from one that does."""
    error = RuntimeError("unexpected pos 704 vs 598")
    error.__context__ = OSError(errno.ENOSPC, "No space left on device")
    return error


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        chained(),
    ],
)
def test_a_full_disk_is_one_clear_error(tmp_path, error):
    path = write_text(tmp_path / "kept", "old")
    said = rf"no space is left for {tmp_path} \([\d,]+ MB free\); free some"
    with pytest.raises(DiskFullError, match=said):
        write_and_fail(path, error)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    assert issubclass(DiskFullError, OSError)
    assert issubclass(DiskFullError, ValueError)


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="this system has no device that is full")
def test_the_system_itself_says_that_a_disk_is_full(tmp_path):
    with pytest.raises(DiskFullError), replacing(tmp_path / "a"), open("/dev/full", "wb") as file:
        file.write(b"x" * 100_000)


def test_content_is_on_the_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    path = write_text(tmp_path / "a", "old")
    seen = []
    monkeypatch.setattr(os, "fsync", lambda file: seen.append((os.fstat(file).st_size, path.read_text())))
    write_bytes(path, b"longer")
    assert seen == [(6, "old")]
    seen.clear()
    with replacing(tmp_path / "folder") as beside:
        write_text(beside / "b" / "c", "four")
        seen.clear()
    assert seen == [(4, "longer")]


def test_a_folder_takes_its_place_whole(tmp_path):
    path = tmp_path / "made" / "of" / "files"
    for _ in range(2):  # the second time an empty folder is there
        with replacing(path) as beside:
            write_text(beside / "b" / "c", "deep")
            assert not path.exists() or not any(path.iterdir())
        assert (path / "b" / "c").read_text() == "deep"
        (path / "b" / "c").unlink()
        (path / "b").rmdir()
    write_text(path / "mine", "kept")
    with pytest.raises(OSError, match="not empty"), replacing(path) as beside:
        write_text(beside / "b", "x")
    assert [each.name for each in path.iterdir()] == ["mine"]
    assert list(path.parent.iterdir()) == [path]


def test_remote_files_and_folders_are_put_when_all_is_written():
    upath = pytest.importorskip("upath", reason="universal-pathlib isn't installed (extra 'remote')")
    root = upath.UPath("memory://files")
    write_json(root / "a.json", [1])
    assert read_json(root / "a.json") == [1]
    with replacing(root / "case") as beside:
        write_text(beside / "b" / "c", "deep")
        assert not (root / "case" / "b" / "c").exists()
    assert (root / "case" / "b" / "c").read_text() == "deep"
    with pytest.raises(DiskFullError), replacing(root / "never") as beside:
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not (root / "never").exists()


def test_what_killed_processes_leave_is_hidden_and_swept(tmp_path):
    path = write_text(tmp_path / "a.json", "old")
    killed = run(KILLED, path)
    assert killed.wait() == -signal.SIGKILL
    (half,) = {*tmp_path.iterdir()} - {path}
    assert half.name.startswith(".a.json.")
    assert path.read_text() == "old"
    here, mine = socket.gethostname().replace(".", "-"), this_process()
    before = tmp_path / f".b.zarr.{here}.{killed.pid}.part"  # as version 0.1.0 named them
    before.mkdir()
    image = tmp_path / f".scan.0a1b2c3d.{here}.{killed.pid}.part.nii.gz"
    elsewhere = tmp_path / f".a.json.0a1b2c3d.another-machine.{killed.pid}.part"
    kept = {path, tmp_path / ".notes.part", tmp_path / f".a.json.0a1b2c3d.{mine}.part"}
    for each in (image, elsewhere, *kept):
        each.touch()
    with replacing(path) as beside:
        beside.write_text("new")
        sweep(tmp_path, tmp_path / "nowhere")
        assert {*tmp_path.iterdir()} == kept | {beside, elsewhere}
        sweep(tmp_path, everywhere=True)
    assert {*tmp_path.iterdir()} == kept
    assert path.read_text() == "new"


@ONE_FOLDER
@given(
    name=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1)
    .map(lambda name: name.encode()[:255].decode(errors="ignore"))
    .filter(lambda name: name not in ("", ".", "..")),
    text=st.text(st.characters(exclude_categories=["Cs"])),
)
def test_any_name_and_text_are_written_as_they_are(tmp_path, name, text):
    for each in (name, (name * 255).encode()[:255].decode(errors="ignore")):
        path = write_text(tmp_path / each, text)
        assert path.read_bytes() == text.encode()
        path.unlink()
    assert list(tmp_path.iterdir()) == []


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@ONE_FOLDER
@given(plain=PLAIN, indent=st.sampled_from([None, 1]))
def test_json_is_read_as_it_was_written(tmp_path, plain, indent):
    assert read_json(write_json(tmp_path / "a.json", plain, indent=indent)) == plain


CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


@ONE_FOLDER
@given(rows=st.lists(st.dictionaries(CELL, CELL, min_size=1), min_size=1))
def test_a_table_has_the_columns_of_all_rows(tmp_path, rows):
    path = write_rows(tmp_path / "a.csv", rows)
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        found = [{key: cell for key, cell in row.items() if cell} for row in reader]
    assert found == rows
    assert list(reader.fieldnames) == list({key: None for row in rows for key in row})


BY_HAND = {
    ("contracts/methods.py", "save"): "into memory",
    ("contracts/weight_sources.py", "save"): "a file that is to be refused, in a folder of the suite's own",
    ("files.py", "write_bytes"): "an object of a remote store is put whole",
    ("phantom/write_dicom.py", "save_as"): "into the folder of a series, which is built beside its place",
    ("scans/dicom_voxels.py", "save_as"): "a file for GDCM in a folder that is removed again",
    ("study/trial.py", "copyfile"): "into a folder that is removed again",
    ("training/lock.py", "write_text"): "the lock is held on this very file, so it can't be another one",
    ("training/provenance.py", "write_text"): "a switch of the kernel, not a file",
    ("training/track.py", "open"): "a log grows line by line",
    ("training/loggers.py", "SummaryWriter"): "so does TensorBoard's",
    ("verbs/export.py", "save"): "into a folder that is built beside its place",
    ("weights/formats/nnunet_adapt.py", "write_text"): "a script that leaves with an export, on its own",
    ("weights/formats/nnunet_adapt.py", "replace"): "the same",
    ("weights/formats/traced.py", "save"): "into the same",
    ("weights/formats/traced.py", "export"): "into the same",
}
"""What writes without `replacing`, and why it may."""

WRITING = frozenset(
    [
        "write_text",
        "write_bytes",
        "touch",
        "dump",
        "save",
        "savez",
        "savez_compressed",
        "savefig",
        "save_file",
        "save_as",
        "export",
        "to_filename",
        "WriteImage",
        "SummaryWriter",
        "to_csv",
        "fdopen",
        "mkstemp",
        "mkdtemp",
        "NamedTemporaryFile",
        "rename",
        "copyfile",
        "copytree",
    ]
)
BY_NAME = frozenset({"save_file", "SummaryWriter", "mkstemp", "mkdtemp", "NamedTemporaryFile", "fdopen"})


def writes(call: ast.Call) -> str | None:
    """The name of a function that puts something at a path, if this is a call of one."""
    method = isinstance(call.func, ast.Attribute)
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    texts = [
        each.value for each in call.args if isinstance(each, ast.Constant) and isinstance(each.value, str)
    ]
    texts += [each.value.value for each in call.keywords if each.arg == "mode"]
    if name == "open":
        return (
            name if any(set(text) <= set("rwaxbt+") and set(text) & set("wax+") for text in texts) else None
        )
    if name == "replace":  # of a path; strings have two arguments, dataclasses name them
        return name if method and len(call.args) == 1 and not call.keywords else None
    return name if name in (WRITING if method else BY_NAME) else None


def by_hand(node: ast.AST) -> Iterator[str]:
    """What is written below a node, but for what is written where a block of `replacing` says."""
    if isinstance(node, ast.With):
        starts = {getattr(getattr(each.context_expr, "func", None), "id", "") for each in node.items}
        if starts & {"replacing", "temporary"}:
            return
    if isinstance(node, ast.Call) and (name := writes(node)):
        yield name
    for child in ast.iter_child_nodes(node):
        yield from by_hand(child)


def test_nothing_is_written_by_hand():
    found = {
        (file.relative_to(SOURCE).as_posix(), name)
        for file in SOURCE.rglob("*.py")
        for name in by_hand(ast.parse(file.read_text()))
    }
    assert found == set(BY_HAND), "write it with parts2whole.files, or say here why not"


@pytest.mark.parametrize(
    "code",
    [
        "path.write_text('x')",
        "open(path, 'w')",
        "path.open(mode='wb')",
        "beside.replace(path)",
        "torch.save(x, path)",
        "save_file(x, path)",
        "with other(path) as beside:\n    beside.write_bytes(b'x')",
    ],
)
def test_writing_by_hand_is_noticed(code):
    assert len([*by_hand(ast.parse(code))]) == 1


@pytest.mark.parametrize(
    "code",
    [
        "write_text(path, 'x')",
        "open(path)",
        "path.open('rb')",
        "text.replace('a', 'w')",
        "dataclasses.replace(x, a=1)",
        "with replacing(path) as beside:\n    torch.save(x, beside)",
    ],
)
def test_reading_and_replacing_are_not(code):
    assert [*by_hand(ast.parse(code))] == []
