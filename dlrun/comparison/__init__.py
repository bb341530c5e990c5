"""A run and all that became of it, opened side by side, judged and timed on the same inputs."""
