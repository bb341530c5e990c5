"""One file per command other than train."""
