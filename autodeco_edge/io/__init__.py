"""Files and streams: written whole or not at all, read with bounds. Knows no models."""
