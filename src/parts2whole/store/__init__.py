"""Boxes in and out of prepared volumes on disk.

Read in this order: `store` (what it looks like, and how it is read), `record` (what it knows of a case),
`case_files` and `chunks` (a case as OME-Zarr; the only module that knows the codec), `histogram` (what lies
where), `croissant` (metadata for catalogues), `location` (folders and buckets).  `ingest` fills a store,
`ingest_report` says what became of every case, `split` divides patients over sides.
"""
