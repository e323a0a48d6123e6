"""What a collector says, and its bytes: ranges, control entries and the batch that carries them."""
