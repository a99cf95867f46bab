"""What several test files share: tiny real models and where to get their parts."""
