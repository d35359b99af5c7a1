"""Finding scans: every file once, in one order, under ids that are safe anywhere."""

from __future__ import annotations

import hashlib

import pytest

from parts2whole.scans.read import ReadError, find_scans, read_scan, safe_name, scan_files, strip_suffix


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


@pytest.mark.parametrize(
    "names",
    [
        ["c0.nii", "c0.nii.gz"],
        ["c0.NII", "c0.nii.gz"],
        ["c0.nii.gz", "c0.NII.GZ"],
        ["c0.mha", "c0.nrrd"],
        ["c0.mgz", "c0.nii", "c0.mhd"],
    ],
)
def test_files_of_one_name_are_ambiguous(tmp_path, names):
    for name in [*names, "c1.nii", "c0_0001.nii.gz", "C2.NII.GZ", "sub/c0.nii", ".c1.nii.gz"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = {source.paths[0].name: source.problem for source in find_scans([tmp_path]) if source.problem}
    assert set(found) == set(names)
    assert all(name in problem for problem in found.values() for name in names)
    with pytest.raises(ReadError, match="lie side by side") as caught:
        scan_files(tmp_path)
    assert all(name in str(caught.value) for name in names)
    assert {s.paths[0].name for s in find_scans([str(tmp_path / "c*")]) if s.problem} == set(names)
    # Named one by one, files are meant, and each is a scan.
    one_by_one = find_scans([tmp_path / name for name in names])
    assert [source.problem for source in one_by_one] == [None] * len(names)
    assert len({source.case_id for source in one_by_one}) == len(names)
    (tmp_path / names[0]).unlink()
    if len(names) == 2:
        kept = {names[1], "c1.nii", "c0_0001.nii.gz", "C2.NII.GZ"}
        assert {path.name for path in scan_files(tmp_path)} == kept
        assert {strip_suffix(name) for name in kept} == {"c0", "c1", "c0_0001", "C2"}
        assert not any(source.problem for source in find_scans([tmp_path]))


def test_search_and_pairs_know_the_same_suffixes(tmp_path):
    """Whatever case they are written in."""
    suffixes = [".nii", ".nii.gz", ".mgz", ".mgh", ".mha", ".mhd", ".nrrd", ".nhdr"]
    for number, suffix in enumerate(suffixes):
        (tmp_path / f"a{number}{suffix}").write_bytes(b"x")
        (tmp_path / f"b{number}{suffix.upper()}").write_bytes(b"x")
    (tmp_path / "labels.TXT").write_text("a0.nii\n")
    names = {f"{letter}{number}" for number in range(len(suffixes)) for letter in "ab"}
    assert {strip_suffix(path.name) for path in scan_files(tmp_path)} == names
    assert {source.case_id for source in find_scans([tmp_path])} == names
    assert [source.case_id for source in find_scans([tmp_path / "labels.TXT"])] == ["a0"]
