"""Every rule for the place of a whole: held to the promises of `WhereContract`."""

from __future__ import annotations

from parts2whole.contracts import WhereContract, suites
from parts2whole.spec import discover
from parts2whole.wholes.where import Where

globals().update(suites(WhereContract, discover(Where, "parts2whole.wholes")))
