"""Whether learned decoding beats fixed settings, and by how much."""
