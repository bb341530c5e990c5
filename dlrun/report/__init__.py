"""Runs as a page to look at and to mail: one HTML file that asks for nothing else."""
