"""Where a run is logged beside its own files: TensorBoard always, MLflow and Weights & Biases if asked.

Others register themselves: an entry point of the group ``parts2whole.loggers`` is a class as `Logger` says,
and its name is what ``--logger`` takes.  A logger that fails is dropped with one warning; training goes on.
"""

from __future__ import annotations

import importlib.util
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

from parts2whole.errors import Parts2WholeError
from parts2whole.extras import install_hint
from parts2whole.files import read_json, write_json

GROUP = "parts2whole.loggers"
KEPT = "loggers.json"
"""In a run folder: what each logger calls the run, so that a resumed run goes on in it."""
PROJECT = "parts2whole"
AT_ONCE = 100


class LoggerError(Parts2WholeError, ValueError):
    """A logger that isn't known, or whose package isn't installed."""


class Logger(Protocol):
    """Takes what a run logs.  It is made with the run folder, and may raise whenever it can't go on.

    A resumed run starts it again; steps that were logged after the checkpoint then come a second time.
    """

    def __init__(self, folder: Path) -> None: ...

    def start(self, settings: Mapping[str, Any]) -> None:
        """The run begins, or goes on; ``settings`` are plain data, as in ``config.yaml``."""

    def log(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Figures of a step, of ``train`` or ``validation``."""

    def finish(self, result: Mapping[str, Any] | None) -> None:
        """The run has ended: with what is in ``result.json``, or without a result."""


class TensorBoard:
    """Scalars for TensorBoard, in ``tensorboard/`` of the run folder; on in every run.

    Args:
        folder: the run folder.
        first_step: where a resumed run goes on; later scalars are not shown any more.
    """

    def __init__(self, folder: Path, *, first_step: int = 0) -> None:
        self.folder, self.first_step = folder, first_step

    def start(self, settings: Mapping[str, Any]) -> None:
        """Open the file."""
        from torch.utils.tensorboard import SummaryWriter

        purge = self.first_step and self.first_step + 1
        self.board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=purge)

    def log(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """A scalar a figure, called ``split/figure``."""
        for key, value in values.items():
            self.board.add_scalar(f"{split}/{key}", value, step)

    def finish(self, result: Mapping[str, Any] | None) -> None:
        """Close the file."""
        self.board.close()


class MLflow:
    """A run of MLflow: parameters, metrics, and the result.

    It goes to ``MLFLOW_TRACKING_URI``, by default the files in ``mlruns/`` beside the run folder, into the
    experiment ``MLFLOW_EXPERIMENT_NAME``, by default ``parts2whole``.  MLflow keeps files only where
    ``MLFLOW_ALLOW_FILE_STORE=true`` says so, which its viewer must be told, too.
    """

    needs = "mlflow"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, settings: Mapping[str, Any]) -> None:
        """Begin a run of MLflow, or go on with it."""
        for name, value in (("MAX_RETRIES", "2"), ("TIMEOUT", "10")):  # a dead server must not hold a run up
            os.environ.setdefault(f"MLFLOW_HTTP_REQUEST_{name}", value)
        place = os.environ.get("MLFLOW_TRACKING_URI") or (self.folder.parent / "mlruns").resolve().as_uri()
        if place.startswith("file:"):
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self.client = MlflowClient(tracking_uri=place)
        self.run = read_kept(self.folder).get("mlflow", "")
        if self.run:
            self.client.update_run(self.run, status="RUNNING")
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
        known = self.client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self.client.create_experiment(name)
        self.run = self.client.create_run(experiment, run_name=self.folder.resolve().name).info.run_id
        keep(self.folder, "mlflow", self.run)
        given = [Param(key, str(value)[:500]) for key, value in flatten(settings).items()]
        for first in range(0, len(given), AT_ONCE):
            self.client.log_batch(self.run, params=given[first : first + AT_ONCE])

    def log(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """A metric a figure, called ``split/figure``."""
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        found = [Metric(f"{split}/{key}", value, now, step) for key, value in finite(values).items()]
        for first in range(0, len(found), AT_ONCE):
            self.client.log_batch(self.run, metrics=found[first : first + AT_ONCE])

    def finish(self, result: Mapping[str, Any] | None) -> None:
        """Log the figures of the result, and end the run."""
        if result is not None:
            self.log(int(result.get("steps") or 0), "result", figures_of(result))
        self.client.set_terminated(self.run, "FAILED" if result is None else "FINISHED")


class WandB:
    """A run of Weights & Biases, in the project ``WANDB_PROJECT``, by default ``parts2whole``.

    Its other variables hold, too: ``WANDB_MODE=offline`` keeps everything in ``wandb/`` of the run folder.
    """

    needs = "wandb"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, settings: Mapping[str, Any]) -> None:
        """Begin a run of Weights & Biases, or go on with it."""
        import wandb

        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            name=self.folder.resolve().name,
            dir=str(self.folder),
            config=dict(settings),
            id=read_kept(self.folder).get("wandb"),
            resume="allow",
        )
        keep(self.folder, "wandb", str(self.run.id))

    def log(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Figures called ``split/figure``."""
        self.run.log({f"{split}/{key}": value for key, value in finite(values).items()}, step=step)

    def finish(self, result: Mapping[str, Any] | None) -> None:
        """Keep the figures of the result as the summary, and end the run."""
        self.run.summary.update({f"result/{key}": value for key, value in figures_of(result or {}).items()})
        self.run.finish(exit_code=int(result is None))


KNOWN: dict[str, Callable[[Path], Logger]] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB}


class Loggers:
    """The loggers of a run; each is dropped where it fails, with one warning.

    Args:
        names: of the loggers beside TensorBoard's, which every run has.
        folder: the run folder.

    Raises:
        LoggerError: one isn't known, or its package isn't installed.
    """

    def __init__(self, names: str | Sequence[str], folder: Path) -> None:
        wanted = dict.fromkeys([names] if isinstance(names, str) else names)
        self.made = {name: find_logger(name)(folder) for name in wanted if name != "tensorboard"}

    def start(self, settings: Mapping[str, Any]) -> None:
        """The run begins, or goes on."""
        self._each(lambda logger: logger.start(settings))

    def log(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Figures of a step."""
        self._each(lambda logger: logger.log(step, split, values))

    def finish(self, result: Mapping[str, Any] | None) -> None:
        """The run has ended."""
        self._each(lambda logger: logger.finish(result))
        self.made.clear()

    def _each(self, call: Callable[[Logger], None]) -> None:
        for name, logger in list(self.made.items()):
            try:
                call(logger)
            except Exception as error:  # whatever their code does, the run is worth more than its log
                del self.made[name]
                what = " ".join(f"{type(error).__name__}: {error}".split())
                text = f"WARNING: logger {name} failed ({what}); the run goes on without it"
                print(text, file=sys.stderr, flush=True)


def find_logger(name: str) -> Callable[[Path], Logger]:
    """The class of a logger.

    Raises:
        LoggerError: it isn't known, or what it needs isn't installed.
    """
    others = {point.name: point for point in entry_points(group=GROUP)}
    if name in KNOWN:
        needs = getattr(KNOWN[name], "needs", None)
        if needs and needs not in sys.modules and importlib.util.find_spec(needs) is None:
            raise LoggerError(f"--logger {name} needs a package: {install_hint(needs)}")
        return KNOWN[name]
    if name not in others:
        raise LoggerError(f"there is no logger {name!r}; known are {', '.join(sorted({*KNOWN, *others}))}")
    try:
        found: Callable[[Path], Logger] = others[name].load()
    except (ImportError, AttributeError) as error:
        raise LoggerError(f"logger {name} ({others[name].value}) can't be imported: {error}") from error
    return found


def flatten(plain: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Nested settings by dotted names; a spec is its class, and its fields follow the dot."""
    found: dict[str, Any] = {}
    for key, value in plain.items():
        if isinstance(value, Mapping) and "class_path" in value:
            found[f"{where}{key}"] = value["class_path"]
            value = value.get("init_args") or {}
        found |= flatten(value, f"{where}{key}.") if isinstance(value, Mapping) else {f"{where}{key}": value}
    return found


def finite(values: Mapping[str, float]) -> dict[str, float]:
    """Values that are numbers."""
    return {key: float(value) for key, value in values.items() if math.isfinite(value)}


def figures_of(result: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a result, by dotted names."""
    numbers = {key: value for key, value in flatten(result).items() if isinstance(value, int | float)}
    return finite(numbers)


def read_kept(folder: Path) -> dict[str, str]:
    """What loggers call the run in ``folder``."""
    path = folder / KEPT
    return {str(key): str(value) for key, value in read_json(path).items()} if path.exists() else {}


def keep(folder: Path, name: str, run: str) -> None:
    """Keep what a logger calls the run."""
    write_json(folder / KEPT, read_kept(folder) | {name: run})
