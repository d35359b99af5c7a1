"""What every network promises."""

from __future__ import annotations

import torch

from parts2whole.contracts.base import Contract, promise
from parts2whole.networks.base import Encoder, Network
from parts2whole.networks.heads import EncoderDecoder, PooledClassifier
from parts2whole.scans.volume import Size


class NetworkContract(Contract):
    """Promises of a network."""

    family = Network
    spec: Network

    def build(self, channels: int = 1, seed: int = 0) -> Encoder:
        """A fresh encoder."""
        torch.manual_seed(seed)
        return self.spec.build_encoder(channels)

    def test_the_pyramid_is_what_the_encoder_says(self) -> None:
        """The encoder says the width and stride of every level, finest first, for any number of channels."""
        for channels in (1, 3):
            encoder = self.build(channels).eval()
            promise(encoder.in_channels == channels, f"in_channels is {encoder.in_channels}, not {channels}")
            z, y, x = (encoder.divisor * n for n in (1, 2, 3))
            with torch.no_grad():
                pyramid = encoder(torch.rand(1, channels, z, y, x))
            found = [tuple(level.shape[1:]) for level in pyramid]
            said = [
                (width, z // stride[0], y // stride[1], x // stride[2])
                for width, stride in zip(encoder.channels, encoder.strides, strict=True)
            ]
            promise(found == said, f"from {z} x {y} x {x} voxels it gives {found}, and says {said}")
            promise(list(encoder.strides) == sorted(encoder.strides), f"strides {encoder.strides} don't grow")

    def test_a_decoder_and_a_head_fit(self) -> None:
        """A fresh decoder, with skip connections and without, and a head fit on the encoder."""
        for skips in (True, False):
            encoder = self.build()
            # A single voxel has no spread that an instance norm could divide by.
            n = encoder.divisor
            shape: Size = (n, n, n * (2 if encoder.norm == "instance" else 1))
            x = torch.rand(2, 1, *shape)
            map_ = EncoderDecoder(encoder, out_channels=3, skips=skips)(x)
            promise(
                map_.shape == (2, 3, *shape), f"a decoder gives {tuple(map_.shape)} from {tuple(x.shape)}"
            )
        logits = PooledClassifier(self.build(), classes=4, hidden=8)(x)
        promise(logits.shape == (2, 4), f"a head gives {tuple(logits.shape)}, not (2, 4)")

    def test_the_same_seed_gives_the_same_weights(self) -> None:
        """The same seed gives the same weights."""
        first, again = (self.build(seed=3).state_dict() for _ in range(2))
        differing = [key for key, value in first.items() if not torch.equal(value, again[key])]
        promise(not differing, f"{', '.join(differing[:3])} differ")

    def test_loaded_weights_are_the_encoder(self) -> None:
        """An encoder that loads the weights of another gives the same features."""
        first, other = self.build(seed=1).eval(), self.build(seed=2).eval()
        other.load_state_dict(first.state_dict())
        x = torch.rand(1, 1, *(2 * first.divisor,) * 3)
        with torch.no_grad():
            for level, (one, two) in enumerate(zip(first(x), other(x), strict=True)):
                promise(torch.equal(one, two), f"level {level} differs; keep what matters in the state")

    def test_input_axes_name_what_grows_with_the_channels(self) -> None:
        """Every tensor that grows with the input channels is named in input_axes, with its axis."""
        one, three = self.build(1), self.build(3)
        shapes = {key: value.shape for key, value in three.state_dict().items()}
        for key, value in one.state_dict().items():
            if value.shape == shapes[key]:
                continue
            axes = [a for a, (m, n) in enumerate(zip(value.shape, shapes[key], strict=True)) if m != n]
            named = one.input_axes.get(key)
            promise(axes == [named], f"{key} grows along axis {axes}, and input_axes says {named}")
