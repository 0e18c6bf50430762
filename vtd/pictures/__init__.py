"""Pictures as SVG text: layouts of trees, walks and bytes, without dependencies.

Who has rows to show lays them out with these; the pictures themselves know nothing of remapping.
"""
