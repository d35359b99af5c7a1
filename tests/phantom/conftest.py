from __future__ import annotations

import pytest

from parts2whole.phantom.ct import make_ct
from parts2whole.phantom.sizes import CT
from parts2whole.verbs.phantom import phantom

CASES = 2


@pytest.fixture(scope="session")
def written(tmp_path_factory):
    """All data sets, tiny, with two patients each."""
    out = tmp_path_factory.mktemp("phantoms") / "data"
    return phantom(out=out, cases=CASES, size="tiny", workers=0, progress=False, preview=True)


@pytest.fixture(scope="session")
def scans():
    """One tiny scan of every region, with lesions."""
    return {region: make_ct(region, CT[region]["tiny"], seed=0, case=0, lesions=4) for region in CT}
