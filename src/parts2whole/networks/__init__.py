"""Networks, one file each: specs that build an encoder, and the decoders and heads that go on it.

Read `base` (what a network and an encoder are), `blocks` (convolution, norm, decoder), `heads` (models on top
of an encoder), then `unet3d`.  `plain_unet` is any U-Net by widths and strides, `resenc_unet3d` nnU-Net's
with a residual encoder.  `published` is what networks of published weights share, `oriented` what those do
whose arrays lay otherwise; each is in its file: `resnet3d`, `i3d`, `densevnet`, `highres3dnet`, `segresnet`,
`segresnet_ds`, `swin_unetr`.  `synchronised` is batch norm over devices, `low_rank` adapts a frozen encoder,
`repeatable` is what torch can't repeat to the bit.
"""
