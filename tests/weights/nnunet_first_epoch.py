"""Plans a tiny data set with nnU-Net, adapts the plan to exported weights and trains for one epoch: a script.

    python nnunet_first_epoch.py EXPORT FOLDER TRAINER

Prints the tensors of the encoder before and after, and the range of the preprocessed voxels, as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np

EXPORT, FOLDER, TRAINER = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
for name in ("raw", "preprocessed", "results"):
    os.environ[f"nnUNet_{name}"] = str(FOLDER / name)
    (FOLDER / name).mkdir(parents=True, exist_ok=True)
os.environ |= {"nnUNet_n_proc_DA": "1", "nnUNet_compile": "f"}
sys.path.insert(0, str(EXPORT))

import torch  # noqa: E402
from nnunetv2.experiment_planning.plan_and_preprocess_api import (  # noqa: E402
    extract_fingerprints,
    plan_experiments,
    preprocess,
)
from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint  # noqa: E402


def write_data() -> None:
    """Five volumes of 24 x 32 x 40 voxels in HU with two structures."""
    root = FOLDER / "raw/Dataset001_Cubes"
    generator = np.random.default_rng(0)
    for number in range(5):
        label = np.zeros((24, 32, 40), np.uint8)
        label[6:16, 8:20, 6:18], label[16:22, 20:28, 22:36] = 1, 2
        image = (generator.normal(0, 80, label.shape) + 400.0 * label - 900).astype(np.int16)
        for array, place in ((image, f"imagesTr/c{number}_0000"), (label, f"labelsTr/c{number}")):
            file = root / f"{place}.nii.gz"
            file.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, np.diag([1.0, 1.0, 1.5, 1.0])), file)
    about = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1, "b": 2}, "numTraining": 5}
    (root / "dataset.json").write_text(json.dumps(about | {"file_ending": ".nii.gz"}))


def main() -> None:
    """The steps of the README of the export."""
    write_data()
    extract_fingerprints([1], num_processes=1)
    plan_experiments([1])
    folder = FOLDER / "preprocessed/Dataset001_Cubes"
    subprocess.run([sys.executable, EXPORT / "adapt_plans.py", folder / "nnUNetPlans.json"], check=True)
    preprocess([1], "p2wPlans", ("3d_fullres",), (1,))
    os.environ |= {"nnUNet_n_proc_DA": "0"}
    cpu = torch.device("cpu")
    trainer = get_trainer_from_args("1", "3d_fullres", 0, TRAINER, "p2wPlans", device=cpu)
    trainer.num_epochs = trainer.num_iterations_per_epoch = trainer.num_val_iterations_per_epoch = 1
    weights = EXPORT / "nnunet_pretrained.pth"
    if TRAINER == "nnUNetTrainer":
        maybe_load_checkpoint(trainer, False, False, str(weights))
    else:
        trainer.initialize()
    state = torch.load(weights, weights_only=True)["network_weights"]
    begun = {key: value.clone() for key, value in trainer.network.state_dict().items()}
    mine = [key for key in state if key.startswith("encoder.")]
    images = [
        trainer.dataset_class(str(folder / "p2wPlans_3d_fullres")).load_case(f"c{n}")[0] for n in range(5)
    ]
    voxels = np.concatenate([np.asarray(image[:]).ravel() for image in images])
    trainer.run_training()
    after = trainer.network.state_dict()
    print(
        json.dumps(
            {
                "loaded": sum(torch.equal(begun[key], state[key]) for key in mine),
                "encoder": len(mine),
                "moved": sum(not torch.equal(begun[key], after[key]) for key in mine),
                "loss": float(trainer.logger.get_value("train_losses", step=0)),
                "range": [float(voxels.min()), float(voxels.max())],
                "spacing": trainer.configuration_manager.spacing,
            }
        )
    )


if __name__ == "__main__":
    main()
