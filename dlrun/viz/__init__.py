"""Pictures: functions from plain values to matplotlib figures, and what writes them. Which values is others' affair."""
