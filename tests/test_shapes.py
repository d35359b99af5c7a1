"""That shapes are checked in tests, and cost nothing elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from jaxtyping import TypeCheckError

from parts2whole.methods.contrast import cosines
from parts2whole.wholes.geometry import crop_resize


def test_a_wrong_shape_is_noticed_here():
    with pytest.raises(TypeCheckError, match="cosines"):
        cosines(torch.rand(3, 4), torch.rand(3, 5))
    with pytest.raises(TypeCheckError, match="crop_resize"):
        crop_resize(torch.rand(4, 4, 4), None, (2, 2, 2))


def test_jaxtyping_is_needed_by_tests_alone():
    code = "import sys; sys.modules['jaxtyping'] = None; from parts2whole.wholes.geometry import resize"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)
