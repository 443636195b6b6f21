"""Products and attention written for the CPU."""
