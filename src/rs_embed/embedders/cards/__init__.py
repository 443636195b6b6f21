"""Model cards, one file per family: data only."""
