"""Device models, one per file."""
