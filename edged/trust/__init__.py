"""What the two parties signed, and how it is checked."""
