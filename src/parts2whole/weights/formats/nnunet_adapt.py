"""Write p2wPlans.json: a plan of nnU-Net with network, normalisation and spacing of parts2whole's weights.

python adapt_plans.py NNUNET_PREPROCESSED/DATASET/nnUNetPlans.json

Beside this file lie nnunet_adaptation.json and nnunet_pretrained.pth. Needs nothing but Python.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

NAME = "p2wPlans"
CONFIGURATION = "3d_fullres"


def adapt(plans: dict[str, Any], ours: dict[str, Any], checkpoint: Path) -> dict[str, Any]:
    """A plan of a data set with what the weights were trained with.

    Args:
        plans: as nnU-Net planned; a configuration 3d_fullres must be in it.
        ours: ``nnunet_adaptation.json``.
        checkpoint: ``nnunet_pretrained.pth``.
    """
    if CONFIGURATION not in plans["configurations"]:
        sys.exit(f"the plan has no configuration {CONFIGURATION}; plan it with -c {CONFIGURATION}")
    made = dict(plans["configurations"][CONFIGURATION])
    channels = len(made["normalization_schemes"])
    if channels != ours["channels"]:
        sys.exit(f"the data set has {channels} channels, the weights {ours['channels']}")
    back = plans["transpose_backward"]  # the weights know axes as files have them: z, y, x
    sizes = ("patch_size", "spacing", "median_image_size_in_voxels")
    patch, spacing, median = ([made[name][axis] for axis in back] for name in sizes)
    if ours["spacing"]:
        median = [size * old / new for size, old, new in zip(median, spacing, ours["spacing"], strict=True)]
        spacing = ours["spacing"]
    patch = [-(-edge // step) * step for edge, step in zip(patch, ours["divisor"], strict=True)]
    made |= dict(zip(sizes, (patch, spacing, median), strict=True))
    made["data_identifier"] = f"{NAME}_{CONFIGURATION}"
    if ours["normalization"]:
        made["normalization_schemes"] = [ours["normalization"]] * channels
        made["use_mask_for_norm"] = [False] * channels
    made["architecture"] = ours["architecture"]
    adapted = {**plans, "plans_name": NAME, "configurations": {CONFIGURATION: made}}
    adapted |= {"transpose_forward": [0, 1, 2], "transpose_backward": [0, 1, 2]}
    for name in ("original_median_spacing_after_transp", "original_median_shape_after_transp"):
        adapted[name] = [plans[name][axis] for axis in back]
    if ours["intensities"]:
        adapted["foreground_intensity_properties_per_channel"] = {
            str(channel): ours["intensities"] for channel in range(channels)
        }
    info = ours["pretrain_info"]
    if info:
        adapted["pretrain_info"] = {**info, "checkpoint_path": str(checkpoint)}
    return adapted


def main() -> None:
    """Adapt the plan that is named, and write the new one beside it."""
    if len(sys.argv) != 2:
        sys.exit(str(__doc__))
    here, file = Path(__file__).resolve().parent, Path(sys.argv[1])
    plans = json.loads(file.read_text(encoding="utf-8"))
    ours = json.loads((here / "nnunet_adaptation.json").read_text(encoding="utf-8"))
    text = json.dumps(adapt(plans, ours, here / "nnunet_pretrained.pth"), indent=4)
    beside = file.with_name(f".{NAME}.json.part")
    beside.write_text(text, encoding="utf-8")
    beside.replace(file.with_name(f"{NAME}.json"))
    print(f"written to {file.with_name(f'{NAME}.json')}")


if __name__ == "__main__":
    main()
