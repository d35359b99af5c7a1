"""The data sets that phantoms can be written as."""

from __future__ import annotations

from collections.abc import Sequence

from parts2whole.errors import Parts2WholeError
from parts2whole.phantom.write import DataSet
from parts2whole.phantom.write_brats import Brats2018
from parts2whole.phantom.write_cadpe import CadPe
from parts2whole.phantom.write_lidc import Lidc
from parts2whole.phantom.write_lits import Lits
from parts2whole.phantom.write_luna import Luna16
from parts2whole.phantom.write_pool import Pool

DATA_SETS: tuple[DataSet, ...] = (Luna16(), Lidc(), Lits(), CadPe(), Brats2018(), Pool())


class UnknownDataSetError(Parts2WholeError, ValueError):
    """A name that is neither a data set's nor a task's."""


def choose_data_sets(names: str | Sequence[str]) -> tuple[DataSet, ...]:
    """Data sets by their own names or by those of the tasks that read them; ``all`` is every one.

    Raises:
        UnknownDataSetError: a name is not known.
    """
    wanted = [names] if isinstance(names, str) else list(names)
    if wanted == ["all"]:
        return DATA_SETS
    known = {name.lower(): each for each in DATA_SETS for name in (each.folder, each.task) if name}
    unknown = [name for name in wanted if name.lower() not in known]
    if unknown or not wanted:
        choices = ", ".join(
            f"{each.folder} ({each.task})" if each.task else each.folder for each in DATA_SETS
        )
        raise UnknownDataSetError(
            f"no phantoms are known for {', '.join(unknown) or 'nothing'}; choose all, or of {choices}"
        )
    return tuple(each for each in DATA_SETS if any(known[name.lower()] is each for name in wanted))
