"""One HTML file about whatever is given together: tables, listings, logs, captures, plans.

A section shows the rows of a command's JSON; nothing is worked out here. It needs the ``report``
extra.
"""
