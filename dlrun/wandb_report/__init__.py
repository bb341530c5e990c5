"""A ready report or workspace for W&B: which runs, which panels, and how they get there, or into a file."""
