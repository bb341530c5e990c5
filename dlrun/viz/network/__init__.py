"""What a network's layers see: the numbers (torch), and in `pictures/` the figures of them (plain values)."""
