"""Networks: specs that build an encoder, and the decoders and heads that go on it."""
