"""The processor's side of the family: guests beside the unit that remaps their devices."""
