"""What ``dataset.json`` says of labels: names and values of classes, regions of them, what is ignored."""

from __future__ import annotations

from typing import Any

from parts2whole.evaluation.regions import metric_name
from parts2whole.tasks.labelled import TaskError
from parts2whole.tasks.labels import LabelMeaning

IGNORE = "ignore"


def read_labels(labels: Any, order: Any) -> LabelMeaning:
    """The meaning of label values.

    Args:
        labels: the value of the key ``labels``.
        order: that of ``regions_class_order``; None where there is none.

    Raises:
        TaskError: they are no labels, or contradict each other.
    """
    ignored = None
    plain: dict[str, tuple[int, ...]] = {}
    for name, value in _values(labels).items():
        if name.strip().casefold() == IGNORE:
            if not isinstance(value, int) or value == 0:
                raise TaskError(f"ignore must be one label value other than 0, got {value!r}")
            ignored = value
            continue
        plain[name] = (value,) if isinstance(value, int) else value
    below = sorted({v for values in plain.values() for v in values if v < 0})
    if below:
        raise TaskError(f"labels has {below}: values must be 0 or above; only ignore may be below")
    if ignored is not None and any(ignored in values for values in plain.values()):
        raise TaskError(f"the label value {ignored} is both ignore and a class")
    background = [name for name, values in plain.items() if values == (0,)]
    for name, values in plain.items():
        if name.casefold() == "background" and values != (0,):
            raise TaskError(f"background must be 0, got {values if len(values) > 1 else values[0]}")
    if len(background) > 1:
        raise TaskError(f"labels gives 0 to {' and '.join(background)}")
    zero = background[0] if background else "background"
    foreground = {name: values for name, values in plain.items() if values != (0,)}
    if not foreground:
        raise TaskError("labels names nothing but background")
    alike: dict[str, str] = {}
    for name in foreground:
        other = alike.setdefault(metric_name(name).casefold(), name)
        if other != name:
            raise TaskError(f"the names {other!r} and {name!r} are alike in tables: rename one")
    if all(len(values) == 1 for values in foreground.values()):
        return _classes(zero, {name: values[0] for name, values in foreground.items()}, ignored)
    return _regions(zero, foreground, ignored, order)


def _values(labels: Any) -> dict[str, int | tuple[int, ...]]:
    """Values by name, whichever way they are written."""
    if not isinstance(labels, dict) or not labels:
        raise TaskError(f'labels must be an object such as {{"background": 0, "liver": 1}}, got {labels!r}')
    if all(
        isinstance(name, str) and not _is_number(name) and _is_number(value) for value, name in labels.items()
    ):
        found: dict[str, int | tuple[int, ...]] = {}
        for value, name in labels.items():
            if name in found:
                raise TaskError(
                    f"labels calls both {found[name]} and {value} {name!r}: give each a name of its own"
                )
            found[name] = int(value)
        return found
    return {name: _value(name, value) for name, value in labels.items()}


def _value(name: str, value: Any) -> int | tuple[int, ...]:
    if isinstance(value, list):
        inside = [_value(name, each) for each in value]
        plain = tuple(each for each in inside if isinstance(each, int))
        if not plain or len(plain) < len(inside) or len(set(plain)) < len(plain):
            raise TaskError(f"the region {name!r} must list different label values, got {value!r}")
        return plain
    if isinstance(value, bool) or not _is_number(value):
        raise TaskError(f"the label {name!r} must be a whole number or a list of them, got {value!r}")
    return int(value)


def _is_number(value: Any) -> bool:
    try:
        return isinstance(value, int | str | float) and int(value) == float(value)
    except (ValueError, OverflowError):
        return False


def _classes(zero: str, foreground: dict[str, int], ignored: int | None) -> LabelMeaning:
    names = {0: zero}
    for name, value in foreground.items():
        if value in names:
            raise TaskError(f"labels gives {value} to {names[value]!r} and {name!r}")
        names[value] = name
    return LabelMeaning(names, ignored, {name: value for value, name in names.items()})


def _regions(zero: str, regions: dict[str, tuple[int, ...]], ignored: int | None, order: Any) -> LabelMeaning:
    """Classes that exclude each other are the values that lie in the same regions.

    As in nnU-Net, masks get the values of ``regions_class_order``, a later region over an earlier one.
    """
    if not isinstance(order, list) or not all(isinstance(v, int) and not isinstance(v, bool) for v in order):
        raise TaskError(
            "labels has regions (lists of values), which need regions_class_order, a list of the values that "
            f"{len(regions)} regions have in masks; got {order!r}"
        )
    if len(order) != len(regions) or min(order) < 1 or ignored in order:
        raise TaskError(
            f"regions_class_order {order} must give each of the {len(regions)} regions "
            f"({', '.join(regions)}) a value above 0 that isn't ignored"
        )
    if any(0 in values for values in regions.values()):
        raise TaskError("a region holds the value 0, which is background")
    names, written = {0: zero}, {zero: 0}
    members: dict[str, list[str]] = {region: [] for region in regions}
    for value in sorted({value for values in regions.values() for value in values}):
        inside = [region for region, values in regions.items() if value in values]
        name = "+".join(inside)
        names[value] = name
        if name not in written:
            written[name] = order[list(regions).index(inside[-1])]
            for region in inside:
                members[region].append(name)
    return LabelMeaning(names, ignored, written, {region: tuple(found) for region, found in members.items()})
