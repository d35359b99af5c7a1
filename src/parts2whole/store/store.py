"""The store: prepared volumes in chunks, read by crop, with a manifest of where each came from.

    store/
      manifest.json               version, preprocessing, records of all cases, cases set aside and why
      records/<case>.json         written last: a case without its record isn't there
      cases/<case>.zarr/          OME-Zarr 0.5: image "0" (c, z, y, x), label "labels/mask/0" (z, y, x);
                                  beside each "cells/0", counts of what lies where, see `cells`
      croissant.json              what is in it, for catalogues of data sets

A case is written beside its place and renamed, so it is never half there.  Values in [0, 1] are
``stored * scale + offset``.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from parts2whole.files import JsonError, disk_full_said, read_json, sweep, write_json, write_text
from parts2whole.scans.preprocess import Preprocess, PreprocessError, StoredType, to_unit
from parts2whole.scans.volume import Box, Volume, content_hash, to_canonical
from parts2whole.spec import SpecError, spec_from_dict
from parts2whole.store import croissant
from parts2whole.store.case_files import CASES, RECORDS, case_path, damage, remove_case, write_case
from parts2whole.store.chunks import ArrayCache, ChunkedArray, ChunkError
from parts2whole.store.location import MANIFEST, is_local, tell_used, to_location
from parts2whole.store.record import CaseRecord, StoreError, read_records

__all__ = ["CaseRecord", "Store", "StoreError", "write_case"]

VERSION = 1
STORED_TYPES = ("int16", "uint8", "float16")


@contextmanager
def _chunk_errors_said() -> Iterator[None]:
    """Turn an error of arrays into one of the store."""
    try:
        yield
    except ChunkError as error:
        raise StoreError(str(error)) from error


class Store:
    """Prepared volumes on disk.

    Cheap to open, whatever its size: the manifest is read once, and arrays are opened when first read, in
    each process by itself.  A store pickles, without its open arrays.

    Attributes:
        path: its folder, or its URL.
        preprocess: how its scans were brought to [0, 1].
        dtype: type of the stored voxels.
        set_aside: reason for every scan that could not be stored.
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

    def summary(self) -> str:
        """How much is in it, and the command that comes next."""
        people = len({record.patient for record in self.cases})
        return (
            f"{len(self.cases)} scans of {people} patients are in {self.path}\nNext, pre-train on them:\n"
            f"  parts2whole pretrain {shlex.quote(str(self.path))} --out runs/pretrain"
        )

    @classmethod
    def open(cls, path: str | Path) -> Store:
        """Open a store to read it.

        Args:
            path: its folder, or a URL that fsspec knows, such as ``s3://bucket/store``.

        Raises:
            StoreError: there is no store, it can't be read, or it is of a later version.
            parts2whole.store.location.LocationError: the library for this kind of URL isn't installed.
        """
        path = to_location(path)
        file = path / MANIFEST
        try:
            plain = read_json(file)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StoreError(f"{path} is not a store: it has no {MANIFEST}; make one with prepare") from error
        except JsonError as error:
            raise StoreError(f"not a manifest: {error}") from error
        try:
            if plain["version"] != VERSION:
                raise StoreError(f"{path} has store version {plain['version']}, this program reads {VERSION}")
            preprocess = spec_from_dict(plain["preprocess"], Preprocess)
            dtype = plain["dtype"]
            complete = bool(plain["complete"])
            records = [CaseRecord.from_plain(record) for record in plain["cases"]] if complete else []
            set_aside = dict(plain["set_aside"])
        except StoreError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, SpecError, PreprocessError) as error:
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
            parts2whole.files.DiskFullError: no space is left.
        """
        path = to_location(path)
        if dtype not in STORED_TYPES:
            raise StoreError(f"dtype must be one of {', '.join(STORED_TYPES)}, got {dtype!r}")
        if used := tell_used(path):
            raise StoreError(used)
        with disk_full_said(path):
            (path / RECORDS).mkdir(parents=True, exist_ok=True)
            (path / CASES).mkdir(parents=True, exist_ok=True)
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
        path = to_location(path)
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

    def read_unit(self, case_id: str, box: Box | None = None) -> npt.NDArray[np.float32]:
        """What networks see of a box, or of all of a volume: (channel, z, y, x) in [0, 1].

        Where the box leaves the volume, it holds zero, to the precision of the store.

        Raises:
            StoreError: there is no such case, or it is damaged.
        """
        return self.read_units([(case_id, box)])[0]

    def read_units(self, wanted: Sequence[tuple[str, Box | None]]) -> list[npt.NDArray[np.float32]]:
        """What `read_unit` gives for each of several (case, box), read and decoded at once."""
        records = [self.record(case_id) for case_id, _ in wanted]
        return [
            to_unit(stored, scale=record.scale, offset=record.offset)
            for record, stored in zip(records, self._read_images(wanted), strict=True)
        ]

    def read(self, case_id: str, box: Box | None = None) -> npt.NDArray[Any]:
        """As `read_unit`, but as stored: integers, or float16."""
        return self._read_images([(case_id, box)])[0]

    def read_label(self, case_id: str, box: Box | None = None) -> npt.NDArray[Any]:
        """Labels (z, y, x) of a box, or of all of a volume; 0 where the box leaves it.

        Raises:
            StoreError: the case has no label.
        """
        record = self.record(case_id)
        if not record.has_label:
            raise StoreError(f"case {case_id!r} in {self.path} has no label")
        path = case_path(self.path, case_id) / "labels" / "mask" / "0"
        with _chunk_errors_said():
            return self._open(path, record.shape).read(box)

    def read_cells(self, case_id: str, *, label: bool = False) -> npt.NDArray[Any]:
        """Counts (kind, z, y, x) of what lies in the cells of a case, see `cells`.

        Raises:
            StoreError: the case was stored before cells were counted.
        """
        self.record(case_id)
        place = case_path(self.path, case_id)
        with _chunk_errors_said():
            return self._open((place / "labels" / "mask" if label else place) / "cells" / "0").read()

    def damage(self, case_id: str) -> str | None:
        """What is wrong with the stored voxels and labels of a case, which are all read; None if nothing."""
        return damage(self.path, self.record(case_id))

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
            parts2whole.files.DiskFullError: no space is left.
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
        """Write voxels that are already of the store's integer type, its full range meaning [0, 1].

        Raises:
            StoreError: the store's type is float16.
        """
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
            self._sweep()
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
            remove_case(self.path, case_id)
            self._cases = None
            self._arrays.forget()
        self.set_aside[case_id] = reason

    def finish(self, *, everywhere: bool = False) -> None:
        """Write the manifest, with all cases added so far.

        Args:
            everywhere: workers on other machines have ended, so remove also what they left half-written.
        """
        self._sweep(everywhere=everywhere)
        self._write_manifest(complete=True)
        self._writing = False

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_arrays": None, "_cases": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._arrays = ArrayCache()

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r}, {len(self._records)} cases)"

    def _sweep(self, *, everywhere: bool = False) -> None:
        if is_local(self.path):
            sweep(self.path, self.path / CASES, self.path / RECORDS, everywhere=everywhere)

    def _read_images(self, wanted: Sequence[tuple[str, Box | None]]) -> list[npt.NDArray[Any]]:
        records = [(self.record(case_id), box) for case_id, box in wanted]
        with _chunk_errors_said():
            reading = [
                self._open(
                    case_path(self.path, record.case_id) / "0", (record.channels, *record.shape)
                ).begin(box, fill=round(-record.offset / record.scale))
                for record, box in records
            ]
            return [finish() for finish in reading]

    def _open(self, path: Path, shape: tuple[int, ...] | None = None) -> ChunkedArray:
        array = self._arrays.open(path, within=self.path)
        if shape not in (None, array.shape):
            raise StoreError(f"{path} has shape {array.shape}, its record {shape}; prepare this case again")
        return array

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
        (self.path / croissant.FILE).unlink(missing_ok=True)
        write_text(self.path / MANIFEST, text)
        if complete:
            about = croissant.describe_store(self.path.absolute().name, text.encode(), self.cases)
            write_json(self.path / croissant.FILE, about)
