"""What comes out: one embedding or several, their files, pictures and similarity."""
