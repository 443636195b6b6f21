"""Where and how networks run."""
