"""What the unit tells software: events, fault records, event interrupts, virtual commands."""
