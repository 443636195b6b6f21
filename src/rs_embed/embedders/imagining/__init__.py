"""TerraMind's generation: its sampler, its tokenizers, and thinking in modalities."""
