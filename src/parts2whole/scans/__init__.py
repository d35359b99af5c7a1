"""Files in, volumes out: the only folder that knows file formats.

Read in this order: `volume` (what comes out: arrays (z, y, x) with their geometry), `source` (where a scan
lies), `find` (which scans a folder holds), `read` (one door to every format), then the formats themselves:
`nifti`, `itk`, `ome_zarr`, `dicom` (which says what the files beside it do) and `matlab`, whose headers
`checks` looks at first.  `dicom_labels` (`dicom_segments`, `dicom_contours`) reads what was drawn on a
series, `dicom_seg` writes masks for viewers with their `codes`.  `preprocess` brings a volume to [0, 1];
`case` is a scan with its channels and its label map.
"""
