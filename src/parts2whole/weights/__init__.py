"""Weights: the card that says where they come from, and loading that names every tensor.

Read `card`, `native` (weights folders of this project), `load` (what ``init`` takes) with `hub` (by name),
then `base` and `convert` (weights that somebody else trained), of which each source is one file:
`models_genesis`, `medicalnet`, `i3d`, `niftynet`, `openmind`, `suprem`, `ct_fm`, and `swin_unetr` and `voco`,
which share `swin`.  `files` and `tensorflow_bundle` read foreign checkpoints without running them; `formats/`
are the formats of other tools, written on export.
"""
