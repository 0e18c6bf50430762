"""What tables, registers and logs mean, told without changing anything."""
