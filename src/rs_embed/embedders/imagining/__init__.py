"""TerraMind's generation: its sampler and tokenizers, and the encoder that thinks in modalities."""
