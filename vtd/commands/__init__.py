"""The commands of the vtd program: arguments in, rendering out."""
