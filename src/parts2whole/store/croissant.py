"""Croissant metadata beside a store: what is in it, for catalogues and loaders of data sets.

MLCommons Croissant 1.0, https://docs.mlcommons.org/croissant/docs/croissant-spec.html: JSON-LD that describes
the manifest, the volumes, and a record for every case.  Licence, citation and where it is published are for
whoever publishes it to add.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from parts2whole.store.case_files import CASES
from parts2whole.store.location import MANIFEST
from parts2whole.store.record import CaseRecord

FILE = "croissant.json"
CONFORMS_TO = "http://mlcommons.org/croissant/1.0"
CASE_SET = "cases"
FIELDS = {
    "case_id": ("sc:Text", "name of the case, and of its folder"),
    "patient": ("sc:Text", "the patient, as far as it is known who is who; ids from DICOM are salted hashes"),
    "modality": ("sc:Text", "what the case was prepared as: CT, MR or unit"),
    "channels": ("sc:Integer", "channels of the volume"),
    "shape": ("sc:Integer", "voxels along z, y, x"),
    "spacing_mm": ("sc:Float", "distance between voxels along z, y, x in mm"),
    "has_label": ("sc:Boolean", "whether a label map is stored with it"),
    "content_hash": ("sc:Text", "SHA-256 of the voxels before any preprocessing"),
}
"""Of a case's record, those that are published, with their types."""

SEVERAL = ("shape", "spacing_mm")
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    **{
        name: f"cr:{name}"
        for name in (
            *("citeAs", "column", "extract", "field", "fileProperty", "fileObject", "fileSet", "format"),
            *("includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet"),
            *("references", "regex", "repeated", "replace", "separator", "source", "subField", "transform"),
        )
    },
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
}
"""How names are read, as the specification gives it."""


def describe_store(name: str, manifest: bytes, cases: Sequence[CaseRecord]) -> dict[str, Any]:
    """The metadata of a store as plain data.

    Args:
        name: of the store.
        manifest: content of its manifest.
        cases: their records.
    """
    people = len({case.patient for case in cases})
    modalities = ", ".join(sorted({case.modality for case in cases})) or "no modality"
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": name,
        "description": (
            f"{len(cases)} volumes ({modalities}) of {people} patients, prepared by parts2whole in one "
            "orientation (z towards superior, y towards posterior, x towards left) and in chunks"
        ),
        "version": f"1.0.0+{hashlib.sha256(manifest).hexdigest()[:8]}",
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": MANIFEST,
                "name": MANIFEST,
                "description": "how the volumes were prepared, and a record for every case",
                "contentUrl": MANIFEST,
                "contentSize": f"{len(manifest)} B",
                "encodingFormat": "application/json",
                "sha256": hashlib.sha256(manifest).hexdigest(),
            },
            {
                "@type": "cr:FileSet",
                "@id": "volumes",
                "name": "volumes",
                "description": "a folder a case, each an OME-Zarr 0.5 image with its label map below labels/",
                "encodingFormat": "application/vnd.zarr",
                "includes": f"{CASES}/*.zarr/**",
            },
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": CASE_SET,
                "name": CASE_SET,
                "description": "a record for every volume",
                "key": {"@id": f"{CASE_SET}/case_id"},
                "field": [_field(name, *about) for name, about in FIELDS.items()],
            }
        ],
    }


def _field(name: str, kind: str, description: str) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"{CASE_SET}/{name}",
        "name": f"{CASE_SET}/{name}",
        "description": description,
        "dataType": kind,
        **({"repeated": True} if name in SEVERAL else {}),
        "source": {
            "fileObject": {"@id": MANIFEST},
            "extract": {"jsonPath": f"$.cases[*].{name}"},
        },
    }
