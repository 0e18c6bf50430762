"""The register window and the capabilities that shape it."""
