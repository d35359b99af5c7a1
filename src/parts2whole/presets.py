"""Settings of fine-tuning that others have published, by name: ``--config preset:openmind``.

None is the recipe of a paper: networks, data, augmentation and lengths are the user's.  Each says what comes
from its source and what doesn't, and any setting that is given beside it counts more.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from parts2whole.errors import Parts2WholeError

PREFIX = "preset:"


class PresetError(Parts2WholeError, ValueError):
    """A preset that there isn't."""


@dataclass(frozen=True)
class Preset:
    """Some settings of `finetune`.

    Attributes:
        source: where they stand.
        settings: plain, as in a YAML file.
        taken: what of them comes from there.
        ours: what is ours, and what of the source is left out.
    """

    source: str
    settings: Mapping[str, Any]
    taken: str
    ours: str


PRESETS = {
    "openmind": Preset(
        "`PretrainedTrainer_sawtooth_150ep` in MIC-DKFZ/nnUNet, the fine-tuning of OpenMind (arXiv "
        "2412.17041)",
        {
            "optimiser": {"SGD": {"lr": 1e-3, "momentum": 0.99, "weight_decay": 3e-5}},
            "schedule": {"Sawtooth": {"first_fraction": 0.1, "warmup_fraction": 0.1, "power": 0.9}},
            "clip_norm": 12.0,
        },
        "rate (a tenth of nnU-Net's from scratch), momentum, weight decay, clipping; 15 and 15 of 150 epochs "
        "for the decoder alone and for the second rise; power of the fall",
        "plain momentum instead of Nesterov's; the first ramp falls linearly; biases and norms don't decay; "
        "the decoder is fresh unless `--decoder pretrained` is given",
    ),
    "ulrich-2025": Preset(
        "Ulrich, Wald, Isensee and Maier-Hein 2025 (arXiv 2504.06741), the best of three schedules there",
        {
            "optimiser": {"SGD": {"lr": 1e-3, "momentum": 0.99, "weight_decay": 3e-5}},
            "schedule": {"Sawtooth": {"first_fraction": 0.0, "warmup_fraction": 0.05, "power": 0.9}},
            "clip_norm": 12.0,
        },
        "everything rises linearly to a tenth of nnU-Net's rate, then falls as a power; the rest is nnU-Net's"
        " default",
        "the share of the rise; plain momentum instead of Nesterov's; biases and norms don't decay",
    ),
    "genesis": Preset(
        "`keras/downstream_tasks` in MrGiovanni/ModelsGenesis (config.py, utils.py)",
        {
            "optimiser": {"AdamW": {"lr": 1e-3, "weight_decay": 0.0}},
            "schedule": {"Plateau": {"decay": 0.5, "patience": 6, "min_delta": 1e-4}},
            "batch_size": 16,
            "clip_norm": None,
        },
        "Adam at its rate (AdamW without decay is Adam), halved after 6 validations without progress; batches"
        " of 16, as in its segmentations; no clipping",
        "a validation is ours and not an epoch, and what must progress is the task's own metric and not the "
        "loss; the rate has no lower end; patience of stopping early, which differs by task there, is yours "
        "(`--patience`)",
    ),
    "monai": Preset(
        "`self_supervised_pretraining/ssl_finetuning_train.py` in Project-MONAI/tutorials",
        {
            "optimiser": {"AdamW": {"lr": 1e-4, "weight_decay": 1e-5}},
            "schedule": "Constant",
            "batch_size": 4,
            "clip_norm": None,
        },
        "AdamW at one rate for all 30,000 iterations, its weight decay, four patches a batch, no clipping",
        "the four patches may come from several volumes, biases and norms don't decay, and the number of "
        "steps is yours: so low a rate is meant for very many",
    ),
}


def read_preset(name: str) -> dict[str, Any]:
    """The settings of a preset, plain.

    Raises:
        PresetError: there is none of this name.
    """
    if name not in PRESETS:
        raise PresetError(f"there is no preset {name!r}; choose from {', '.join(PRESETS)}")
    return copy.deepcopy(dict(PRESETS[name].settings))
