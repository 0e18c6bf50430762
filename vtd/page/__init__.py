"""The *Try it* page: what was pasted or dropped is recognised, and answered as the commands do."""
