"""criadero."""
