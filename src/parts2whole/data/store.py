"""The store: prepared volumes in chunks, read by crop, with a manifest of where each came from.

    store/
      manifest.json               version, preprocessing, records of all cases, cases set aside and why
      records/<case>.json         written last: a case without its record isn't there
      cases/<case>.zarr/          OME-Zarr 0.5: image "0" (c, z, y, x), label "labels/mask/0" (z, y, x)

A case is written beside its place and renamed, so it is never half there.  Values in [0, 1] are
``stored * scale + offset``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from parts2whole.data.chunks import ArrayCache, ChunkedArray, ChunkError, write_image, write_mask
from parts2whole.data.preprocess import Preprocess, PreprocessError, StoredType
from parts2whole.data.record import (
    CaseRecord,
    DiskFullError,
    StoreError,
    disk_full_said,
    read_records,
    sweep,
    this_process,
    write_text,
)
from parts2whole.data.volume import Volume, content_hash, to_canonical
from parts2whole.spec import SpecError, spec_from_dict

__all__ = ["Box", "CaseRecord", "DiskFullError", "Store", "StoreError", "write_case"]

Box = tuple[slice, slice, slice]

VERSION = 1
MANIFEST, RECORDS, CASES = "manifest.json", "records", "cases"
STORED_TYPES = ("int16", "uint8", "float16")


class Store:
    """Prepared volumes on disk.

    Cheap to open, whatever its size: the manifest is read once, and arrays are opened when first read, in
    each process by itself.  A store pickles, without its open arrays.
    """

    def __init__(
        self,
        path: Path,
        *,
        preprocess: Preprocess,
        dtype: StoredType,
        records: Mapping[str, CaseRecord],
        set_aside: Mapping[str, str],
    ) -> None:
        self.path = path
        self.preprocess = preprocess
        self.dtype: StoredType = dtype
        self.set_aside = dict(set_aside)
        self._records = dict(records)
        self._cases: tuple[CaseRecord, ...] | None = None
        self._writing = False
        self._arrays = ArrayCache()

    @classmethod
    def open(cls, path: str | Path) -> Store:
        """Open a store to read it.

        Raises:
            StoreError: there is no store, it can't be read, or it is of a later version.
        """
        path = Path(path)
        file = path / MANIFEST
        try:
            plain = json.loads(file.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StoreError(f"{path} is not a store: it has no {MANIFEST}; make one with prepare") from error
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise StoreError(f"{file} is not a manifest: {error}") from error
        try:
            if plain["version"] != VERSION:
                raise StoreError(f"{path} has store version {plain['version']}, this program reads {VERSION}")
            preprocess = spec_from_dict(plain["preprocess"], Preprocess)
            dtype = plain["dtype"]
            complete = bool(plain["complete"])
            records = [CaseRecord.from_plain(record) for record in plain["cases"]] if complete else []
            set_aside = dict(plain["set_aside"])
        except (KeyError, TypeError, SpecError, PreprocessError) as error:
            raise StoreError(f"{file} is not a manifest this program can read: {error!r}") from error
        if not complete:
            records = read_records(path / RECORDS)
        by_id = {record.case_id: record for record in records}
        return cls(path, preprocess=preprocess, dtype=dtype, records=by_id, set_aside=set_aside)

    @classmethod
    def create(cls, path: str | Path, *, preprocess: Preprocess, dtype: StoredType = "int16") -> Store:
        """Make an empty store.

        Raises:
            StoreError: ``path`` is in use, or ``dtype`` isn't one of int16, uint8, float16.
            DiskFullError: no space is left.
        """
        path = Path(path)
        if dtype not in STORED_TYPES:
            raise StoreError(f"dtype must be one of {', '.join(STORED_TYPES)}, got {dtype!r}")
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            raise StoreError(f"{path} is in use; choose another folder, or empty it first")
        with disk_full_said(path):
            (path / RECORDS).mkdir(parents=True)
            (path / CASES).mkdir()
        store = cls(path, preprocess=preprocess, dtype=dtype, records={}, set_aside={})
        store.begin()
        return store

    @classmethod
    def open_or_create(
        cls, path: str | Path, *, preprocess: Preprocess, dtype: StoredType = "int16"
    ) -> Store:
        """Open the store in ``path`` to add to it, or make it.

        Raises:
            StoreError: the store there was prepared in another way.
        """
        path = Path(path)
        if not (path / MANIFEST).exists():
            return cls.create(path, preprocess=preprocess, dtype=dtype)
        store = cls.open(path)
        if not store._records:
            store.preprocess, store.dtype = preprocess, dtype
        if (store.preprocess, store.dtype) == (preprocess, dtype):
            return store
        there, wanted = store.preprocess.to_dict()["init_args"], preprocess.to_dict()["init_args"]
        there["dtype"], wanted["dtype"] = store.dtype, dtype
        differ = ", ".join(
            f"{k}={there[k]!r} (asked for {wanted[k]!r})" for k in there if there[k] != wanted[k]
        )
        raise StoreError(
            f"the store in {path} was prepared with {differ}; choose another folder, or overwrite it"
        )

    @property
    def cases(self) -> tuple[CaseRecord, ...]:
        """Records of all cases, by case id."""
        if self._cases is None:
            self._cases = tuple(self._records[case] for case in sorted(self._records))
        return self._cases

    def has(self, case_id: str) -> bool:
        """Whether a case is in the store."""
        return case_id in self._records

    def record(self, case_id: str) -> CaseRecord:
        """The record of a case.

        Raises:
            StoreError: there is no such case.
        """
        try:
            return self._records[case_id]
        except KeyError:
            reason = self.set_aside.get(case_id)
            why = f"it was set aside: {reason}" if reason else f"it has {len(self._records)} cases"
            raise StoreError(f"no case {case_id!r} in {self.path}; {why}") from None

    def read(self, case_id: str, box: Box | None = None) -> npt.NDArray[Any]:
        """Stored voxels (channel, z, y, x) of a box, or of the whole volume; reads only the chunks needed."""
        self.record(case_id)
        return self._read(_case_path(self.path, case_id) / "0", (slice(None), *(box or ())))

    def read_label(self, case_id: str, box: Box | None = None) -> npt.NDArray[Any]:
        """Labels (z, y, x) of a box, or of the whole volume.

        Raises:
            StoreError: the case has no label.
        """
        if not self.record(case_id).has_label:
            raise StoreError(f"case {case_id!r} in {self.path} has no label")
        return self._read(_case_path(self.path, case_id) / "labels" / "mask" / "0", box or ())

    def fingerprint(self) -> str:
        """A hash over the content of all scans, whatever their names or order."""
        return hashlib.sha256("\n".join(sorted(r.content_hash for r in self.cases)).encode()).hexdigest()[:32]

    def duplicates(self) -> dict[str, str]:
        """Cases whose original voxels equal those of an earlier case, and that case."""
        first: dict[str, str] = {}
        found = {}
        for record in self.cases:
            earlier = first.setdefault(record.content_hash, record.case_id)
            if earlier != record.case_id:
                found[record.case_id] = earlier
        return found

    def write_case(
        self, record: CaseRecord, array: npt.NDArray[Any], label: npt.NDArray[Any] | None = None
    ) -> CaseRecord:
        """Write a case atomically, replacing an older one; `finish` makes it visible in the manifest.

        Args:
            record: its description; ``checksum``, ``has_label`` and ``label_values`` are filled in.
            array: stored voxels (channel, z, y, x) of the store's dtype.
            label: integers (z, y, x).

        Raises:
            StoreError: shapes or types don't fit.
            DiskFullError: no space is left.
        """
        self.begin()
        written = write_case(self.path, record, array, label, dtype=self.dtype)
        self.add(written)
        return written

    def write_volume(
        self,
        case_id: str,
        volume: Volume,
        *,
        patient: str,
        modality: str = "unit",
        source: tuple[str, ...] = (),
    ) -> CaseRecord:
        """Write voxels that are already of the store's integer type, its full range meaning [0, 1]."""
        if self.dtype == "float16":
            raise StoreError("write_volume needs a store of an integer type")
        canonical = to_canonical(volume)
        record = CaseRecord(
            case_id=case_id,
            patient=patient,
            modality=modality,
            channels=canonical.array.size // int(np.prod(canonical.shape)),
            shape=canonical.shape,
            spacing_mm=canonical.spacing_mm,
            origin_mm=canonical.origin_mm,
            direction=canonical.direction,
            scale=1 / np.iinfo(self.dtype).max,
            offset=0.0,
            content_hash=content_hash(canonical.array),
            source=source,
        )
        return self.write_case(record, canonical.array.reshape(-1, *canonical.shape))

    def begin(self) -> None:
        """Say in the manifest that cases are being written, until `finish`."""
        if not self._writing:
            sweep(self.path / CASES, self.path / RECORDS)
            self._write_manifest(complete=False)
            self._writing = True

    def add(self, record: CaseRecord) -> None:
        """Enter a case that `write_case` has written, perhaps in another process."""
        self._records[record.case_id] = record
        self.set_aside.pop(record.case_id, None)
        self._cases = None
        self._arrays.forget()

    def exclude(self, case_id: str, reason: str) -> None:
        """List a case as set aside; one that was stored from an older source is removed."""
        if self._records.pop(case_id, None) is not None:
            (self.path / RECORDS / f"{case_id}.json").unlink(missing_ok=True)
            shutil.rmtree(_case_path(self.path, case_id), ignore_errors=True)
            self._cases = None
            self._arrays.forget()
        self.set_aside[case_id] = reason

    def finish(self, *, everywhere: bool = False) -> None:
        """Write the manifest, with all cases added so far.

        Args:
            everywhere: workers on other machines have ended, so remove also what they left half-written.
        """
        sweep(self.path / CASES, self.path / RECORDS, everywhere=everywhere)
        self._write_manifest(complete=True)
        self._writing = False

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_arrays": None, "_cases": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._arrays = ArrayCache()

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r}, {len(self._records)} cases)"

    def _read(self, path: Path, box: tuple[slice, ...]) -> npt.NDArray[Any]:
        try:
            return self._arrays.open(path).read(box)
        except ChunkError as error:
            raise StoreError(str(error)) from error

    def _write_manifest(self, *, complete: bool) -> None:
        plain = {
            "version": VERSION,
            "complete": complete,
            "dtype": self.dtype,
            "preprocess": self.preprocess.to_dict(),
            "set_aside": dict(sorted(self.set_aside.items())),
            "duplicates": self.duplicates() if complete else {},
        }
        # One record a line: quick to write and to read for a hundred thousand, and a person can search it.
        rows = ",\n".join(json.dumps(record.to_plain()) for record in self.cases) if complete else ""
        text = f'{json.dumps(plain, indent=1)[:-2]},\n "cases": [\n{rows}\n]}}\n'
        write_text(self.path / MANIFEST, text)


def write_case(
    path: Path,
    record: CaseRecord,
    array: npt.NDArray[Any],
    label: npt.NDArray[Any] | None = None,
    *,
    dtype: StoredType,
) -> CaseRecord:
    """`Store.write_case` for a worker, which needs the folder and not the records."""
    expected = (record.channels, *record.shape)
    if array.shape != expected or array.dtype != np.dtype(dtype):
        raise StoreError(f"{record.case_id}: expected {dtype} {expected}, got {array.dtype} {array.shape}")
    if label is not None and (label.shape != record.shape or label.dtype.kind not in "iu"):
        raise StoreError(
            f"{record.case_id}: expected an integer label {record.shape}, got {label.dtype} {label.shape}"
        )
    record = dataclasses.replace(
        record,
        checksum=_checksum(array, label),
        has_label=label is not None,
        label_values=() if label is None else tuple(int(value) for value in np.unique(label)),
    )
    final = _case_path(path, record.case_id)
    beside = final.with_name(f".{final.name}.{this_process()}.part")
    with disk_full_said(path):
        try:
            (path / RECORDS / f"{record.case_id}.json").unlink(missing_ok=True)
            write_image(beside, record.case_id, array, record.spacing_mm)
            if label is not None:
                write_mask(beside, label, record.spacing_mm)
            again = None if label is None else ChunkedArray(beside / "labels" / "mask" / "0").read()
            if _checksum(ChunkedArray(beside / "0").read(), again) != record.checksum:
                raise StoreError(f"{record.case_id}: what was written reads back differently; check the disk")
            shutil.rmtree(final, ignore_errors=True)
            beside.rename(final)
            write_text(path / RECORDS / f"{record.case_id}.json", json.dumps(record.to_plain(), indent=1))
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return record


def _checksum(array: npt.NDArray[Any], label: npt.NDArray[Any] | None) -> str:
    hasher = hashlib.blake2b(digest_size=16)
    for part in (array, label):
        if part is not None:
            hasher.update(f"{part.dtype.str}{part.shape}".encode())
            hasher.update(np.ascontiguousarray(part).data)
    return hasher.hexdigest()


def _case_path(path: Path, case_id: str) -> Path:
    return path / CASES / f"{case_id}.zarr"
