"""Files that can't be trusted: refused with a reason, never executed."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from parts2whole.cli import main
from parts2whole.weights.base import WeightsError
from parts2whole.weights.files import read_tensors
from parts2whole.weights.load import load_initialisation
from parts2whole.weights.tensorflow_bundle import read_bundle


class Malicious:
    """Pickles to a call that leaves a trace when it is loaded."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, capsys):
    trace = tmp_path / "ran"
    path = tmp_path / "resnet_10.pth"
    torch.save({"state_dict": {"module.conv1.weight": torch.zeros(1)}, "extra": Malicious(trace)}, path)
    with pytest.raises(WeightsError, match="would run code"):
        read_tensors(path)
    plain = tmp_path / "plain.pth"
    plain.write_bytes(pickle.dumps({"conv1.weight": Malicious(trace)}))
    with pytest.raises(WeightsError):
        read_tensors(plain)
    assert main(["weights", "import", f"medicalnet:{path}", "--out", str(tmp_path / "out")]) == 1
    assert "would run code" in capsys.readouterr().err
    assert not trace.exists()
    assert not (tmp_path / "out").exists()


def test_object_arrays_are_refused_and_not_run(tmp_path):
    trace = tmp_path / "ran"
    path = tmp_path / "model.npz"
    np.savez(path, a=np.array([Malicious(trace)], dtype=object))
    with pytest.raises(WeightsError, match="object arrays"):
        read_tensors(path)
    assert not trace.exists()
    np.savez(path, a=np.array(["text"]))
    with pytest.raises(WeightsError, match="not numeric"):
        read_tensors(path)


@pytest.mark.parametrize("name", ["model.pth", "model.npz", "model.safetensors"])
def test_truncated_files_and_files_of_other_kinds_are_named(name, tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / name
    state = {"a": torch.arange(1000.0)}
    if name.endswith("pth"):
        torch.save(state, path)
    elif name.endswith("npz"):
        np.savez(path, a=state["a"].numpy())
    else:
        save_file(state, path)
    assert torch.equal(read_tensors(path)["a"], state["a"])
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"\x89HDF\r\n\x1a\n" + bytes(100)):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match="damaged"):
            read_tensors(path)


def test_an_npz_keeps_scalars_and_loses_the_numbers_of_outputs(tmp_path):
    np.savez(tmp_path / "a.npz", **{"net/conv/w:0": np.ones((2, 1), np.float32), "step": np.int64(3)})
    found = read_tensors(tmp_path / "a.npz")
    assert {key: tuple(value.shape) for key, value in found.items()} == {"net/conv/w": (2, 1), "step": ()}


def test_what_is_not_a_mapping_or_not_there_is_named(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="not a mapping"):
        read_tensors(tmp_path / "a.pth")
    torch.save({"epoch": 3}, tmp_path / "b.pth")
    with pytest.raises(WeightsError, match="no tensors"):
        read_tensors(tmp_path / "b.pth")
    with pytest.raises(WeightsError, match="doesn't exist"):
        read_tensors(tmp_path / "c.pth")
    with pytest.raises(WeightsError, match="folder without"):
        read_tensors(tmp_path)
    with pytest.raises(
        WeightsError, match=r"one of the sources ct_fm, i3d, medicalnet, models_genesis, niftynet, openmind"
    ):
        load_initialisation("medicalnett:resnet_10.pth")


def test_wrappers_and_prefixes_are_taken_off(tmp_path):
    torch.save(
        {"state_dict": {"module.a": torch.ones(1), "module.b": torch.ones(2)}, "epoch": 1}, tmp_path / "a.pth"
    )
    assert list(read_tensors(tmp_path / "a.pth")) == ["a", "b"]
    torch.save({"module.a": torch.ones(1), "b": torch.ones(2)}, tmp_path / "b.pth")
    assert list(read_tensors(tmp_path / "b.pth")) == ["module.a", "b"]


# --- TensorFlow checkpoints; the writer here is the format once more ------------------------------------------------


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def masked(content: bytes) -> bytes:
    """CRC-32C bit by bit (reflected polynomial 0x82F63B78), masked."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(value)


def block(entries: list[tuple[bytes, bytes]]) -> bytes:
    out, before = b"", b""
    for key, value in entries:
        shared = next(
            (i for i, (a, b) in enumerate(zip(key, before, strict=False)) if a != b),
            min(len(key), len(before)),
        )
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    out += (0).to_bytes(4, "little") + (1).to_bytes(4, "little") + b"\0"
    return out + masked(out)


def write_bundle(prefix: Path, arrays: dict[str, np.ndarray]) -> None:
    data, entries = b"", [(b"", field(1, 1))]
    for name, array in sorted(arrays.items()):
        content = array.tobytes()
        shape = b"".join(field(2, field(1, edge)) for edge in array.shape)
        kind = {"float32": 1, "int64": 9}[str(array.dtype)]
        message = (
            field(1, kind) + field(2, shape) + (field(4, len(data)) if data else b"") + field(5, len(content))
        )
        entries.append((name.encode(), message + varint(6 << 3 | 5) + masked(content)))
        data += content
    body = block(entries)
    meta_at = len(body)
    body += block([])
    index_at = len(body)
    body += block([(b"\xff", varint(0) + varint(meta_at - 5))])
    footer = (
        varint(meta_at) + varint(index_at - meta_at - 5) + varint(index_at) + varint(len(body) - index_at - 5)
    )
    body += footer.ljust(40, b"\0") + (0xDB4775248B80FB57).to_bytes(8, "little")
    Path(f"{prefix}.index").write_bytes(body)
    Path(f"{prefix}.data-00000-of-00001").write_bytes(data)


@pytest.fixture
def bundle(tmp_path) -> Path:
    arrays = {
        "net/conv/w": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        "net/conv/b": np.float32([1, 2]),
        "global_step": np.int64(7).reshape(()),
    }
    write_bundle(tmp_path / "model.ckpt-7", arrays)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/elsewhere/model.ckpt-7"\n')
    return tmp_path / "model.ckpt-7"


def test_a_checkpoint_is_read_by_prefix_file_and_folder(bundle):
    for path in (bundle, Path(f"{bundle}.index"), Path(f"{bundle}.data-00000-of-00001"), bundle.parent):
        found = read_tensors(path)
        assert list(found) == ["global_step", "net/conv/b", "net/conv/w"]
        assert found["global_step"] == 7
        assert torch.equal(found["net/conv/w"], torch.arange(24.0).reshape(2, 3, 4))


def test_every_damaged_byte_of_a_checkpoint_is_noticed(bundle):
    expected = read_bundle(bundle)
    for name in (f"{bundle}.index", f"{bundle}.data-00000-of-00001"):
        path, whole = Path(name), Path(name).read_bytes()
        for at in range(len(whole)):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
            try:
                found = read_bundle(bundle)
            except WeightsError:
                continue
            # Padding of the footer, and the empty block that nothing reads, carry no meaning.
            assert all(torch.equal(found[key], value) for key, value in expected.items()), (name, at)
        for length in range(0, len(whole), 7):
            path.write_bytes(whole[:length])
            with pytest.raises(WeightsError):
                read_bundle(bundle)
        path.write_bytes(whole)
    shutil.move(f"{bundle}.data-00000-of-00001", f"{bundle}.data")
    with pytest.raises(WeightsError, match="is missing"):
        read_bundle(bundle)
