"""Networks, one file each: specs that build an encoder, and the decoders and heads that go on it.

Read `base` (what a network and an encoder are), `blocks` (convolution, norm, decoder), `heads` (models on top
of an encoder), then `unet3d`.  `published` is what networks of published weights share, each in its file:
`resnet3d`, `i3d`, `densevnet`, `highres3dnet`; `plain_unet` is any U-Net by widths and strides,
`resenc_unet3d` nnU-Net's with a residual encoder.  `synchronised` is batch norm over devices.
"""
