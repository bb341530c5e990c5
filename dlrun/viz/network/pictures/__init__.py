"""Figures of what a network's layers see: plain values and NumPy's arrays in, a figure out."""
