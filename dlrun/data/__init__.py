"""Datasets: a builder returns a `Source`, that is a `DataSpec` and the splits behind it."""
