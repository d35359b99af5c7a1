"""Finding scans: every file once, in one order, under ids that are safe anywhere."""

from __future__ import annotations

import hashlib

import pytest

from parts2whole.scans.read import ReadError, find_scans, read_scan, safe_name


@pytest.fixture
def tree(tmp_path):
    names = [
        "b.nii.gz",
        "a.nii",
        "sub/a.nii",
        "sub/ä b (1).nii.gz",
        "notes.md",
        ".hidden.nii",
        "x.raw",
        "c.MHA",
    ]
    for name in names:
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path / "tree"


def test_folders_are_searched_in_one_order(tree):
    found = find_scans([tree])
    assert [source.case_id for source in found] == ["a", "b", "c", "sub__a", "sub__a_b_1_"]
    assert all(source.problem is None for source in found)
    assert find_scans([tree, tree / "a.nii", str(tree / "sub")]) == found


def test_files_globs_and_lists(tree, tmp_path):
    assert [s.case_id for s in find_scans([tree / "a.nii"])] == ["a"]
    assert [s.case_id for s in find_scans([str(tree / "*")])] == [
        "a",
        f"a-{s8(tree / 'sub/a.nii')}",
        "a_b_1_",
        "b",
        "c",
    ]
    assert [s.case_id for s in find_scans([str(tree / "**" / "*.nii.gz")])] == ["a_b_1_", "b"]
    (tree / "list.txt").write_text("# scans\na.nii\n\nsub/a.nii\nnot-there.nii\nnotes.md\n", encoding="utf-8")
    found = {source.paths[0].name: source for source in find_scans([tree / "list.txt"])}
    assert "doesn't exist" in found["not-there.nii"].problem
    assert "unknown format" in found["notes.md"].problem
    assert len(find_scans([tree / "list.txt"])) == 4
    with pytest.raises(ReadError, match="not-there"):
        read_scan(found["not-there.nii"])


def s8(path):
    return hashlib.sha256(str(path).encode()).hexdigest()[:8]


def test_case_ids_are_unique_and_safe(tree):
    found = find_scans([tree / "a.nii", tree / "sub" / "a.nii"])
    assert [source.case_id for source in found] == ["a", f"a-{s8(tree / 'sub/a.nii')}"]
    for name in ("../../x", "a/b", "..", "", "-rf", "ü", "a" * 300, "CON:?*", "x\n\ty", "\udcff"):
        safe = safe_name(name)
        assert safe
        assert len(safe) <= 100
        assert not set(safe) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
        assert safe[0] not in ".-"


def test_labels_beside_images_are_not_scans(tmp_path):
    for name in (
        "images/a.nii",
        "labels/a.nii",
        "Task/imagesTr/b.nii",
        "Task/labelsTr/b.nii",
        "labelsTs/c.nii",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    assert [s.case_id for s in find_scans([tmp_path])] == ["Task__imagesTr__b", "images__a", "labelsTs__c"]


def test_links_end(tree):
    (tree / "sub" / "loop").symlink_to(tree)
    (tree / "nowhere.nii").symlink_to(tree / "gone.nii")
    (tree / "link.nii").symlink_to(tree / "a.nii")
    found = {source.case_id: source.problem for source in find_scans([tree])}
    assert "loop" in found["sub__loop"]
    assert "link to nowhere" in found["nowhere"]
    assert found["link"] is None
    assert len(found) == 8


def test_nothing_there(tmp_path):
    assert find_scans([tmp_path]) == []
    with pytest.raises(ReadError, match="doesn't exist"):
        find_scans([tmp_path / "nowhere"])
    with pytest.raises(ReadError, match="nothing matches"):
        find_scans([str(tmp_path / "*.nii")])
