"""Digests of settings as version 0.1.0 made them, so that work finished then isn't done again.

That version wrote the module of a class beside its name.  ``specs-0.1.0.json`` says where its classes were
and which fields they had; a field that came later must have its default, or the settings are not the same.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

from parts2whole.errors import Parts2WholeError
from parts2whole.spec import Plain, Spec, to_plain

DEFAULTS_010 = {"overlap": 0.5}
"""What version 0.1.0 did where a setting now decides for itself; less overlap gives the same Dice."""


class NoAlias(Parts2WholeError):
    """Settings that version 0.1.0 couldn't have had."""


def plain_010(value: Any) -> Any:
    """What `to_plain` gave in version 0.1.0.

    Raises:
        NoAlias: that version had no such class or setting.
    """
    if isinstance(value, Spec):
        return _spec_010(value)
    if isinstance(value, (list, tuple)):
        return [plain_010(item) for item in value]
    if isinstance(value, dict):
        return {str(key): plain_010(item) for key, item in value.items()}
    return to_plain(value)


def _spec_010(spec: Spec) -> Plain:
    kind = type(spec)
    if kind.__module__.partition(".")[0] != "parts2whole":  # one's own: as it is today
        module, names = kind.__module__, [field.name for field in dataclasses.fields(spec)]
    elif kind.__qualname__ in _specs_010():
        module, names = _specs_010()[kind.__qualname__]
    else:
        raise NoAlias
    for field in dataclasses.fields(spec):
        if field.name not in names and getattr(spec, field.name) != _default(field):
            raise NoAlias
    arguments = {name: plain_010(getattr(spec, name)) for name in names}
    arguments |= {name: value for name, value in DEFAULTS_010.items() if arguments.get(name, 0) is None}
    return {"class_path": f"{module}.{kind.__qualname__}", "init_args": arguments}


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


@functools.cache
def _specs_010() -> dict[str, tuple[str, list[str]]]:
    text = Path(__file__).with_name("specs-0.1.0.json").read_text(encoding="utf-8")
    return {name: (module, fields) for name, (module, fields) in json.loads(text).items()}
