"""Physical memory and the binary entries that live in it."""
