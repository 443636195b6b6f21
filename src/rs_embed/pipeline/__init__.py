"""Plan, fetch, encode, read out: the one path that every call takes."""
