from __future__ import annotations

import pickle
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parts2whole.methods.base import Method
from parts2whole.methods.parts2whole import Parts2Whole
from parts2whole.networks.base import Network
from parts2whole.networks.unet3d import UNet3D
from parts2whole.spec import SpecError, discover, spec_from_dict, spec_from_yaml


@given(st.floats(0.05, 0.5), st.floats(0.5, 1), st.booleans(), st.integers(1, 9))
def test_yaml_round_trip(low, high, per_axis, parts):
    spec = Parts2Whole(part_fraction=(low, high), per_axis=per_axis, parts_per_whole=parts)
    again = spec_from_yaml(spec.to_yaml(), Method)
    assert again == spec
    assert again.digest() == spec.digest()
    assert pickle.loads(pickle.dumps(spec)) == spec


def test_digest_changes_with_any_field_and_class():
    digests = {
        Parts2Whole().digest(),
        Parts2Whole(skips=True).digest(),
        UNet3D().digest(),
        UNet3D("tiny").digest(),
    }
    assert len(digests) == 4


def test_families_are_found_by_listing_their_folder():
    assert {"Parts2Whole", "Autoencoder"} <= set(discover(Method, "parts2whole.methods"))
    assert set(discover(Network, "parts2whole.networks")) >= {"UNet3D"}
    assert "Reconstruction" not in discover(Method, "parts2whole.methods")


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        (
            {"class_path": "parts2whole.methods.parts2whole.Parts2Whole", "init_args": {"x": 1}},
            "has no field x",
        ),
        ({"class_path": "parts2whole.networks.unet3d.UNet3D", "init_args": {}}, "no Method called 'UNet3D'"),
        ({"class_path": "parts2whole.methods.nothing.Nothing"}, "no Method called 'Nothing'"),
        ({"class_path": "parts2whole.methods.base.os"}, "no Method called 'os'"),
        ({"init_args": {}}, "expected class_path"),
    ],
)
def test_a_bad_description_is_refused(plain, message):
    with pytest.raises(SpecError, match=message):
        spec_from_dict(plain, Method)


def test_reading_a_spec_never_imports_what_the_file_names():
    assert "antigravity" not in sys.modules
    with pytest.raises(SpecError, match=r"add --own FILE\.py"):
        spec_from_dict({"class_path": "antigravity.Method", "init_args": {}}, Method)
    assert "antigravity" not in sys.modules


def test_importing_the_package_imports_nothing_heavy():
    code = "import parts2whole, sys; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
