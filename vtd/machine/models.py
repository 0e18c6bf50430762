"""Device models of a machine description: made by name, with parameters checked beforehand."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, get_type_hints

from devices.function import PciFunction
from devices.models import find_model
from pagetables.memory import PhysicalMemory
from vtd.machine.description import DescribedFunction
from vtd.machine.reading import Problems, is_plain, plain_value

Models = Mapping[str, type[PciFunction]]
"""Further models by name, beside those of :mod:`devices.models`."""


def make_function(
    function: DescribedFunction, memory: PhysicalMemory, models: Models, problems: Problems
) -> PciFunction | None:
    """The function of a description; None, and problems noted, if its model can't be that.

    A constructor that wants the machine's ``memory`` gets it.
    """
    try:
        model = models.get(function.model) or find_model(function.model)
    except LookupError as error:
        problems.add(function.where, "model", error.args[0])
        return None
    arguments = _arguments(function, model, problems)
    if arguments is None:
        return None
    if "memory" in inspect.signature(model).parameters:
        arguments["memory"] = memory
    try:
        return model(**arguments)
    except MemoryError:
        problems.add(function.where, "parameters", "they ask for more memory than there is")
        return None
    except (TypeError, ValueError) as error:
        problems.add(function.where, "parameters", str(error))
        return None


def parameters(model: type[PciFunction]) -> dict[str, Any]:
    """The parameters that a description can give a model, and their types."""
    hints = get_type_hints(model.__init__, include_extras=True)
    names = inspect.signature(model).parameters
    return {name: hint for name, hint in hints.items() if name in names and is_plain(hint)}


def _arguments(
    function: DescribedFunction, model: type[PciFunction], problems: Problems
) -> dict[str, Any] | None:
    known, before = parameters(model), len(problems.found)
    arguments = {}
    for name, value in function.parameters.items():
        key = f"parameters: {name}"
        if name not in known:
            text = f"no parameter of {function.model}; it has {', '.join(known) or 'none'}"
            problems.add(function.where, key, text)
            continue
        try:
            arguments[name] = plain_value(known[name], value)
        except ValueError as error:
            problems.add(function.where, key, str(error))
    return arguments if len(problems.found) == before else None
