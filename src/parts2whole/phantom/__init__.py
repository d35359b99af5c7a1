"""Synthetic scans, deterministic by seed, so that everything can be tried without data.

Bodies: `torso` and `wall`, `chest` (vessels are `trees`), `abdomen`, `brain`, their `lesions` and
`enhancement`, painted on a `canvas` in a `space` of one of the `sizes` with `noise`; `ct` is a whole CT.  The
challenges' formats are written by `write_luna`, `write_lidc`, `write_lits`, `write_cadpe`, `write_brats` and
`write_pool`, with `write`, `write_dicom` and `write_rtstruct`; `data_sets` lists them, `montage` shows them,
`example` writes the smallest.
"""
