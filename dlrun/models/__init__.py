"""Models: each is built from its own options and the `DataSpec`, and knows no config."""
