"""How exports fetch imagery: ahead of use, in shared reads, with copies kept."""
