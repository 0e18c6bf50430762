"""Options that several commands share, declared once as the fields of a dataclass."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from inspect import Parameter
from typing import Any, TypeVar, get_type_hints

T = TypeVar("T")


def with_option_groups(command: Callable[..., T]) -> Callable[..., T]:
    """The command with each parameter whose type is a dataclass replaced by options, its fields.

    The command gets the dataclass. Every field needs a default.
    """
    signature = inspect.signature(command, eval_str=True)
    groups: dict[str, type[Any]] = {}
    parameters: list[Parameter] = []
    for name, parameter in signature.parameters.items():
        if isinstance(parameter.annotation, type) and is_dataclass(parameter.annotation):
            groups[name] = parameter.annotation
            parameters += _options(parameter.annotation)
        else:
            parameters.append(parameter.replace(kind=Parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def grouped(**values: Any) -> T:
        for name, group in groups.items():
            values[name] = group(**{each.name: values.pop(each.name) for each in fields(group)})
        return command(**values)

    grouped.__annotations__ = {each.name: each.annotation for each in parameters}
    vars(grouped)["__signature__"] = signature.replace(parameters=parameters)
    return grouped


def _options(group: type[Any]) -> list[Parameter]:
    hints = get_type_hints(group, include_extras=True)
    found = []
    for each in fields(group):
        if each.default is MISSING:
            raise TypeError(f"{group.__name__}.{each.name}: an option needs a default")
        found.append(
            Parameter(
                each.name,
                Parameter.KEYWORD_ONLY,
                default=each.default,
                annotation=hints[each.name],
            )
        )
    return found
