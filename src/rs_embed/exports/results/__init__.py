"""What a run left: opened, checked, compacted."""
