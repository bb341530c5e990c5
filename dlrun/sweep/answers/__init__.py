"""What a sweep came to: tables, pictures, the winner, and how far it is. Reads its folder; imports no torch."""
