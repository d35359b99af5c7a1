"""Pretext tasks, one file each: a batch of wholes becomes views and a loss.

Read `base` (what a method is), then `parts2whole` (the idea).  The others are what it is compared with:
`parts2whole_contrast`, `autoencoder`, `masked_autoencoder`, `models_genesis`, `volume_fusion`, `simclr`,
`moco`, `exemplar`.  What some share is in `transforms` (intensity and painting) and `contrast` (the
contrastive loss, over devices).  A new method is one new file.
"""
