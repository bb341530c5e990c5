"""A run on a terminal, while it is trained or afterwards: read from its folder, in which nothing is touched."""
