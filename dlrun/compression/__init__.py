"""A smaller net of a trained one: pruned, or quantised to int8."""
