"""The path of every call: plan, fetch, encode, read out."""
