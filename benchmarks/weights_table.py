"""The table of published weights in docs/weights.md: sizes, contracts, licences, and checks.

    python benchmarks/weights_table.py --write
    python benchmarks/weights_table.py --write --recordings FOLDER

Without ``--recordings`` the imported networks are compared with the NumPy reference of the tests. With a
folder of recorded outputs of the official networks (``<model>.json``, ``<model>.npz``, ``gen_weights.py``)
they are compared with those too.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch

import parts2whole as p2w
from parts2whole.networks.base import Network, count_parameters
from parts2whole.weights import i3d, medicalnet, models_genesis, niftynet
from parts2whole.weights.base import Provenance

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "weights.md"
BEGIN, END = "<!-- table: benchmarks/weights_table.py -->", "<!-- end of table -->"
ROWS: list[tuple[str, str, Network, int, int, Provenance, list[str]]] = [
    (
        "Models Genesis",
        "models_genesis",
        p2w.UNet3D(size="base"),
        1,
        1,
        models_genesis.PROVENANCE,
        ["models_genesis"],
    ),
    *(
        (
            f"MedicalNet ResNet-{depth}",
            "medicalnet",
            p2w.ResNet3D(depth=depth),
            1,
            2,
            medicalnet.PROVENANCE,
            models,
        )
        for depth, models in (
            (10, ["medicalnet_resnet10"]),
            (18, ["medicalnet_resnet18"]),
            (34, []),
            (50, ["medicalnet_resnet50"]),
            (101, []),
            (152, []),
            (200, []),
        )
    ),
    ("I3D", "i3d", p2w.I3D(), 3, 400, i3d.PROVENANCE, ["i3d", "i3d_hassony2", "i3d_deepmind"]),
    (
        "DenseVNet",
        "niftynet",
        p2w.DenseVNet(),
        1,
        9,
        niftynet.DENSEVNET,
        ["niftynet_densevnet", "niftynet_densevnet_prior"],
    ),
    ("HighRes3DNet", "niftynet", p2w.HighRes3DNet(), 1, 160, niftynet.HIGHRES, ["niftynet_highres3dnet"]),
]
"""Name, source, network, input channels, output channels, provenance, stand-ins of the reference."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="write it into docs/weights.md")
    parser.add_argument("--recordings", type=Path, help="folder of recorded outputs of the official networks")
    given = parser.parse_args()
    text = table(given.recordings)
    if not given.write:
        print(text)
        return
    page = PAGE.read_text()
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def table(recordings: Path | None) -> str:
    """Sizes and checks, then contracts, as Markdown."""
    lines = [
        "| network | source | parameters: encoder | own decoder or head (classes) | NumPy reference "
        "| official recordings |",
        "|---|---|---|---|---|---|",
    ]
    for name, source, network, channels, classes, _, models in ROWS:
        with torch.device("meta"):
            encoder = count_parameters(network.build_encoder(channels))
            own = network.build_own(channels, classes)
        assert own is not None
        checked = against_reference(models)
        recorded = against_recordings([*models[:1]], recordings) if recordings else "not run"
        lines.append(
            f"| {name} | `{source}:` | {encoder:,} | {count_parameters(own):,} ({classes}) | {checked} "
            f"| {recorded} |"
        )
    lines += [
        "",
        "| network | licence of the weights | where | trained on | expects |",
        "|---|---|---|---|---|",
    ]
    seen: set[str] = set()
    for *_, about, _ in ROWS:
        if about.title not in seen:
            seen.add(about.title)
            lines.append(
                f"| {about.title} | {about.licence} | {about.where} | {about.trained_on} | {about.expects} |"
            )
    command = "python benchmarks/weights_table.py --write" + (" --recordings FOLDER" if recordings else "")
    lines += [
        "",
        "Checks are the largest difference of any named output, relative to the largest expected value but "
        f"at least 1; the bound is 1e-4. Written by `{command}` on {date.today():%Y-%m-%d}, torch "
        f"{torch.__version__}, {platform.machine()} CPU.",
    ]
    return "\n".join(lines)


def against_reference(models: list[str]) -> str:
    """Largest difference from the NumPy reference."""
    reference = load_module(ROOT / "tests" / "weights" / "reference.py")
    found = []
    for model in models:
        tensors, x, wanted = reference.stand_in(model)
        got = endpoints(model, tensors, x)
        found.append(
            max(float(np.abs(got[k] - v).max() / max(1.0, np.abs(v).max())) for k, v in wanted.items())
        )
    return f"{max(found):.1e}" if found else "names and shapes only"


def against_recordings(models: list[str], folder: Path) -> str:
    """Largest difference from recorded outputs."""
    generator = load_module(folder / "gen_weights.py")
    found = []
    for model in models:
        if not (folder / f"{model}.json").exists():
            continue
        manifest = generator.load_manifest(model)
        for case, about in manifest["cases"].items():
            got = endpoints(model, generator.weights(manifest), generator.inputs(manifest, case))
            found += [generator.compare(manifest, case, name, got[name])[1] for name in about["outputs"]]
    return f"{max(found):.1e}" if found else "none at hand"


def endpoints(model: str, tensors: dict[str, np.ndarray], x: np.ndarray) -> dict[str, np.ndarray]:
    """Endpoints of an imported stand-in; inputs and outputs in the source's own axes."""
    source = next(s for s in ("models_genesis", "medicalnet", "i3d", "niftynet") if model.startswith(s))
    turned = source in ("models_genesis", "niftynet")
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        np.savez(Path(folder) / "model.npz", **tensors)
        network: Any = p2w.load_encoder(f"{source}:{Path(folder) / 'model.npz'}")
        image = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 1, 4, 3, 2)) if turned else x)
        found = network.forward_endpoints(image)
    return {k: (v.permute(0, 1, 4, 3, 2) if turned and v.ndim == 5 else v).numpy() for k, v in found.items()}


def load_module(path: Path) -> Any:
    """A Python file as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
