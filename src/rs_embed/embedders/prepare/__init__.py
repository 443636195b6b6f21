"""From chips to what a network takes: windows and normalisation."""
