"""``vtd dmar``: check, show, build, edit and compare DMAR tables, and ask who owns a device."""

from __future__ import annotations

from vtd.commands.command_group import command_group
from vtd.commands.dmar_answers import audit_command, rmrr_command, scope_command
from vtd.commands.dmar_edit import edit_command
from vtd.commands.dmar_tables import build_command, diff_command, export_command, show_command
from vtd.commands.dmar_validate import rules_command, validate_command

app = command_group("Check, show, build, edit and compare DMAR tables, and ask who owns a device.")


for name, command in (
    ("validate", validate_command),
    ("rules", rules_command),
    ("show", show_command),
    ("build", build_command),
    ("export", export_command),
    ("edit", edit_command),
    ("diff", diff_command),
    ("scope", scope_command),
    ("rmrr", rmrr_command),
    ("audit", audit_command),
):
    app.command(name)(command)
