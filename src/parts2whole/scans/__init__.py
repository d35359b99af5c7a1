"""Files in, volumes out: the only folder that knows file formats.

Read in this order: `volume` (what comes out: arrays (z, y, x) with their geometry), `source` (where a scan
lies), `find` (which scans a folder holds, and in which `layout`), `label_maps` (which of them are labels),
`patients` (whose they are), `read` (one door to every format), then the formats themselves: `nifti`, `itk`,
`ome_zarr`, `dicom` and `matlab`, whose headers `checks` looks at first.  A DICOM series goes through
`dicom_slices`, `dicom_sort` (with `dicom_stacks` and `dicom_apart`) and `dicom_voxels`.  `dicom_labels`
(`dicom_segments`, `dicom_contours`) reads what was drawn on a series, `dicom_seg` writes masks for viewers
with their `codes`.  `preprocess` brings a volume to [0, 1]; `case` is a scan with its channels and its label
map.
"""
