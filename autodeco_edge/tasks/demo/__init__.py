"""What the demo model is asked: generated problems of six families and their verifiers. `families` is the way in."""
