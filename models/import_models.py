"""The import step's command line: bring models into the BentoML model store."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor, Future
from dataclasses import dataclass, replace
from pathlib import Path

from bentoml.exceptions import BentoMLException

from importing import report, sources
from importing.download import Downloader
from importing.errors import ImportFailure, WeightsMissing, WeightsRefused
from importing.jobs import CalibrationJob, Conversion, Job
from importing.report import Outcome
from importing.weights import Weights, calibration_digest, fingerprint, gather, standin_version
from importing.workshop import Workshop
from models import store
from models.card import ModelCard
from models.catalogue import CATALOGUE, ModelName, ModelSpec
from models.store import StoredModel, StoreError

logger = logging.getLogger(__name__)

_FAILURES = (ImportFailure, StoreError, BentoMLException, OSError, BrokenExecutor)
_STANDIN_ORIGIN = "random numbers"
_PICTURES = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True)
class Request:
    """What the command line asks for; `source` goes with exactly one name; no `pictures`: no int8."""

    names: tuple[ModelName, ...]
    source: str | None
    standins: bool
    pictures: tuple[Path, ...]


@dataclass(frozen=True)
class _Pending:
    """A model that is being converted: `weights` is None for a stand-in, `seconds` were spent on finding it."""

    spec: ModelSpec
    weights: Weights | None
    job: Job
    conversion: Future[Conversion]
    seconds: float


def import_models(request: Request) -> list[Outcome]:
    """Bring the requested models into the BentoML model store; one that fails does not stop the others."""
    downloader = Downloader()
    outcomes: list[Outcome] = []
    pending: list[_Pending] = []
    with store.exclusive(), Workshop(len(request.names)) as workshop:
        for name in reversed(request.names):  # depth takes longest: at the end it would be converted alone
            started = time.perf_counter()
            try:
                begun = _begin(CATALOGUE[name], request, downloader, workshop)
            except _FAILURES as error:
                begun = Outcome(name, "failed", time.perf_counter() - started, problem=str(error))
            if isinstance(begun, Outcome):
                outcomes.append(begun)
            else:
                pending.append(begun)
        outcomes += [_finish(one) for one in pending]
        if request.pictures:
            outcomes = [_calibrate(outcome, request.pictures, workshop) for outcome in outcomes]
    return outcomes


def _begin(spec: ModelSpec, request: Request, downloader: Downloader, workshop: Workshop) -> Outcome | _Pending:
    """Find a model's weights and, unless the store has them already, start their conversion."""
    started = time.perf_counter()
    folder = Path(tempfile.mkdtemp(prefix=f"{spec.name}-", dir=workshop.scratch))
    weights: Weights | None
    try:
        if request.source is not None:
            weights = sources.given(spec, request.source, downloader, workshop.scratch / "downloads")
        else:
            weights = sources.locate(spec, _readable(spec.name, "latest"), downloader)
    except WeightsMissing as error:
        if not request.standins:
            raise
        logger.warning("%s: %s", spec.name, error)
        weights = None
    version = standin_version(spec.name) if weights is None else fingerprint(weights).version
    stored = latest = _readable(spec.name, "latest", untrained=weights is None)
    if stored is None or stored.converted_version != version:  # else it is that, or that with an int8 form beside it
        stored = _readable(spec.name, version, untrained=weights is None)
    if latest is not None and latest.card.int8 and stored is not latest and not request.pictures:
        logger.warning("%s: the int8 form was of other weights or an earlier version: --calibrate anew.", spec.name)
    if stored is not None:
        store.select(spec.name, stored.version, untrained=weights is None)
        return _outcome(stored, "already there", time.perf_counter() - started)
    logger.info("%s: converting %s from %s.", spec.name, spec.title, weights.origin if weights else _STANDIN_ORIGIN)
    job = Job(spec.name, weights.files if weights else (), folder)
    return _Pending(spec, weights, job, workshop.submit(job), time.perf_counter() - started)


def _finish(pending: _Pending) -> Outcome:
    """Wait for a conversion and store what it made."""
    spec, folder = pending.spec, pending.job.folder
    try:
        conversion = pending.conversion.result()
        copy = gather(spec, spec.loaded_path(folder / store.WEIGHTS), _STANDIN_ORIGIN)
        identity = fingerprint(copy)
        card = ModelCard(
            name=spec.name,
            weights=spec.weights,
            sha256=identity.sha256,
            source=pending.weights.origin if pending.weights else _STANDIN_ORIGIN,
            licence=spec.licence,
            labels=conversion.labels,
            input=conversion.input,
            outputs=conversion.outputs,
            tolerance=conversion.tolerance,
            conversion=spec.conversion,
            untrained=pending.weights is None,
        )
        stored = store.save(card, identity.version if pending.weights else standin_version(spec.name), folder)
    except WeightsRefused as error:
        problem = f"{pending.weights.origin if pending.weights else 'the stand-in'} is refused: {error}"
        return Outcome(spec.name, "failed", pending.seconds, problem=problem)
    except BrokenExecutor:
        problem = "the process that converted it died, as it does where memory runs out: import this model alone"
        return Outcome(spec.name, "failed", pending.seconds, problem=problem)
    except _FAILURES as error:
        return Outcome(spec.name, "failed", pending.seconds, problem=str(error))
    stages = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in conversion.seconds.items())
    logger.info("%s: stored as %s (%s).", spec.name, stored.tag, stages)
    return _outcome(stored, "imported", pending.seconds + sum(conversion.seconds.values()))


def _calibrate(imported: Outcome, pictures: tuple[Path, ...], workshop: Workshop) -> Outcome:
    """Store an imported model once more with an int8 form beside its graphs, unless the store has it already."""
    if imported.state == "failed":
        return imported
    started = time.perf_counter()
    try:
        stored = store.find(imported.name)
        assert stored is not None  # it was just imported, and no other import is under way
        version = store.calibrated_version(stored, calibration_digest(pictures))
        calibrated = _readable(imported.name, version)
        if calibrated is None:
            logger.info("%s: calibrating int8 on %d pictures.", imported.name, len(pictures))
            folder = Path(tempfile.mkdtemp(prefix=f"{imported.name}-int8-", dir=workshop.scratch))
            loss = workshop.calibrate(CalibrationJob(stored, pictures, folder)).result()
            calibrated = store.save(replace(stored.card, int8=loss), version, folder)
        else:
            store.select(imported.name, version)
    except BrokenExecutor:
        return replace(
            imported, state="failed", problem="the process that calibrated it died, as where memory runs out"
        )
    except _FAILURES as error:
        return replace(imported, state="failed", problem=f"int8: {error}")
    seconds = imported.seconds + time.perf_counter() - started
    return replace(imported, seconds=seconds, int8=calibrated.card.int8)


def _outcome(stored: StoredModel, state: report.State, seconds: float) -> Outcome:
    card = stored.card
    return Outcome(
        name=card.name,
        state="untrained stand-in" if card.untrained else state,
        seconds=seconds,
        origin=card.source,
        size=sum(file.stat().st_size for file in stored.weights_folder.iterdir()),
        sha256=card.sha256,
        tolerance=card.tolerance,
        int8=card.int8,
    )


def _readable(name: ModelName, version: str, *, untrained: bool = False) -> StoredModel | None:
    """A stored version, or None where it is absent or damaged: then it is imported anew."""
    try:
        return store.find_version(name, version, untrained=untrained)
    except StoreError as error:
        logger.warning("%s: %s. It is imported anew.", name, error)
        return None


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code: 0 where every requested model is in the store."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # BentoML reports each saved model to its maker unless told not to.
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    outcomes = import_models(_parse(arguments))
    print(report.table(outcomes))
    for line in report.losses(outcomes):
        print(line)
    for outcome in outcomes:
        if outcome.state == "untrained stand-in":
            logger.warning(
                "%s HAS NO TRAINED WEIGHTS: a stand-in of random numbers takes its place; its answers mean nothing.",
                outcome.name,
            )
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    for outcome in failed:
        logger.error("%s was not imported: %s", outcome.name, outcome.problem)
    return 1 if failed else 0


def _parse(arguments: Sequence[str] | None) -> Request:
    parser = argparse.ArgumentParser(
        prog="python -m models.import_models",
        description="Bring models into the BentoML model store: find, check and convert weights, and prove the result.",
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"one of {', '.join(CATALOGUE)}; all where none is given"
    )
    origin = parser.add_mutually_exclusive_group()
    origin.add_argument("--source", metavar="PATH-OR-URL", help="where the weights of the one named model are")
    origin.add_argument(
        "--untrained-standins",
        action="store_true",
        help="for a trial without weights: where none can be had, use random numbers in their place",
    )
    parser.add_argument(
        "--calibrate",
        metavar="FOLDER",
        type=Path,
        help="quantize to int8 as well, on the pictures in this folder and below it, such as your cameras make (for "
        "person_reid: crops of people), and say what that costs",
    )
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in CATALOGUE]
    if unknown:
        parser.error(f"unknown model {', '.join(unknown)}: choose from {', '.join(CATALOGUE)}")
    if options.source and len(options.names) != 1:
        parser.error("--source goes with the name of exactly one model")
    if options.calibrate and options.untrained_standins:
        parser.error("--calibrate is of no use with --untrained-standins: their answers mean nothing in any precision")
    pictures = _pictures(options.calibrate) if options.calibrate else ()
    if options.calibrate and not pictures:
        parser.error(f"--calibrate: there is no picture ({', '.join(_PICTURES)}) in {options.calibrate}")
    names = tuple(name for name in CATALOGUE if not options.names or name in options.names)
    return Request(names, options.source, options.untrained_standins, pictures)


def _pictures(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(path.absolute() for path in folder.rglob("*") if path.suffix.lower() in _PICTURES))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # leaves no scratch files behind
    sys.exit(main())
