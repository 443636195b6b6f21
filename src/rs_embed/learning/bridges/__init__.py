"""Embeddings in the tools that people already use: scikit-learn and torch. The accessor of xarray is `rs_embed.xarray`.

They belong to the layer `learning`, because a dataset of torch takes its targets from `labels`.
"""
