"""A trained net as a file for other programs, and that file checked against the net."""
