"""Target tasks, one file each: cases, split, head, loss and metric.

Read `base` (what a task is) and `labelled` (its data), then `segmenting` and `classifying` (what each kind
shares), then `segmentation`, `dicom_segmentation` and `classification` (one's own data). `patches` are
training samples, `augment` changes them, `losses` are minimised, `windows` go over whole volumes, `native` is
the way to the voxels of label files, `sides` says what a split can show.  One's own data are found by
`pairs`, `channels`, `dataset_json` (with `dataset_labels`), `spreadsheet` and `npz`; `labels` says what label
values mean, `places` names points in new scans.  Challenges: `liver_segmentation`,
`brain_tumour_segmentation` (names in `brats`), `nodule_segmentation` (annotations in `lidc`), and the
`candidates` of `nodule_false_positives` and `embolism_false_positives` (made in `emboli`); `derived` keeps
what is computed once.
"""
