"""Every network, now and later: found by listing the folder, held to the promises of `NetworkContract`."""

from __future__ import annotations

from parts2whole.contracts import NetworkContract, suites
from parts2whole.networks.base import Network
from parts2whole.spec import discover

globals().update(suites(NetworkContract, discover(Network, "parts2whole.networks")))
