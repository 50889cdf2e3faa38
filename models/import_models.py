"""The import step's command line: finds, converts and stores models in the BentoML model store."""

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
    """The command line's options. source: only with exactly one name. pictures: for int8; empty = no int8."""

    names: tuple[ModelName, ...]
    source: str | None
    standins: bool
    pictures: tuple[Path, ...]


@dataclass(frozen=True)
class _Pending:
    """A model under conversion. weights: None for a stand-in. seconds: time spent on finding the weights."""

    spec: ModelSpec
    weights: Weights | None
    job: Job
    conversion: Future[Conversion]
    seconds: float


def import_models(request: Request) -> list[Outcome]:
    """Import the requested models into the BentoML model store. A failure does not stop the other models."""
    downloader = Downloader()
    outcomes: list[Outcome] = []
    pending: list[_Pending] = []
    with store.exclusive() as scratch, Workshop(scratch, len(request.names)) as workshop:
        for name in reversed(request.names):  # depth comes first: it takes longest
            started = time.perf_counter()
            try:
                begun = _begin(CATALOGUE[name], request, downloader, workshop)
            except _FAILURES as error:
                state: report.State = "missing" if isinstance(error, WeightsMissing) else "failed"
                begun = Outcome(name, state, time.perf_counter() - started, problem=str(error))
            if isinstance(begun, Outcome):
                outcomes.append(begun)
            else:
                pending.append(begun)
        outcomes += [_finish(one) for one in pending]
        if request.pictures:
            outcomes = [_calibrate(outcome, request.pictures, workshop) for outcome in outcomes]
    return outcomes


def _begin(spec: ModelSpec, request: Request, downloader: Downloader, workshop: Workshop) -> Outcome | _Pending:
    """Find a model's weights, and start their conversion unless the store has them already."""
    started = time.perf_counter()
    folder = Path(tempfile.mkdtemp(prefix=f"{spec.name}-", dir=workshop.scratch))
    weights: Weights | None
    try:
        if request.source is not None:
            weights = sources.given(spec, request.source, downloader, workshop.scratch / "downloads")
        else:
            weights = sources.locate(spec, _newest_readable(spec.name), downloader)
    except WeightsMissing as error:
        if not request.standins:
            raise
        logger.warning("%s: %s", spec.name, error)
        weights = None
    version = standin_version(spec.name) if weights is None else fingerprint(weights).version
    stored = latest = _readable(spec.name, "latest", untrained=weights is None)
    if stored is None or stored.converted_version != version:  # a calibrated version has the same converted_version
        stored = _readable(spec.name, version, untrained=weights is None)
    if latest is not None and latest.card.int8 and stored is not latest and not request.pictures:
        logger.warning(
            "%s: its int8 graph was made from other weights or by an earlier version, and is no longer served."
            " Run the import again with --calibrate.",
            spec.name,
        )
    if stored is not None:
        store.select(spec.name, stored.version, untrained=weights is None)
        return _outcome(stored, "already there", time.perf_counter() - started)
    if weights is not None:
        _name_unknown(weights)
    logger.info("%s: converting %s from %s.", spec.name, spec.title, weights.origin if weights else _STANDIN_ORIGIN)
    job = Job(spec.name, weights.files if weights else (), folder)
    return _Pending(spec, weights, job, workshop.submit(job), time.perf_counter() - started)


def _name_unknown(weights: Weights) -> None:
    """Log the sha256 of a checkpoint that is about to be opened and is not the public one."""
    sha256 = fingerprint(weights).sha256
    if weights.spec.file and sha256 not in {source.sha256 for source in weights.spec.sources}:
        logger.warning(
            "%s: %s is not the known public file: its sha256 is %s. It is a pickle, and is opened in a process of its "
            "own that runs none of its code. Compare the checksum with its author's.",
            weights.spec.name,
            weights.origin,
            sha256,
        )


def _finish(pending: _Pending) -> Outcome:
    """Wait for a conversion, and store its graphs."""
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
        problem = "the process that converted it died, probably for lack of memory: import this model alone"
        return Outcome(spec.name, "failed", pending.seconds, problem=problem)
    except _FAILURES as error:
        return Outcome(spec.name, "failed", pending.seconds, problem=str(error))
    stages = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in conversion.seconds.items())
    logger.info("%s: stored as %s (%s).", spec.name, stored.tag, stages)
    return _outcome(stored, "imported", pending.seconds + sum(conversion.seconds.values()))


def _calibrate(imported: Outcome, pictures: tuple[Path, ...], workshop: Workshop) -> Outcome:
    """Store an imported model again with an int8 graph, unless the store has that version already."""
    if imported.in_vain:
        return imported
    started = time.perf_counter()
    try:
        stored = store.find(imported.name)
        assert stored is not None  # it was just imported, and store.exclusive keeps other imports out
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
            imported, state="failed", problem="the process that calibrated it died, probably for lack of memory"
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


def _newest_readable(name: ModelName) -> StoredModel | None:
    """Return the latest version, or the newest of the others if that is damaged; None if none can be used."""
    versions = ["latest", *store.versions(name)]
    return next(filter(None, (_readable(name, version) for version in versions)), None)


def _readable(name: ModelName, version: str, *, untrained: bool = False) -> StoredModel | None:
    """Return a stored version, or None if it is absent or damaged and has to be imported anew."""
    try:
        stored = store.find_version(name, version, untrained=untrained)
        if stored is not None:
            store.verify(stored, *(stored.folder / file for file in stored.checksums))
        return stored
    except StoreError as error:
        logger.warning(
            "%s: %s. The model is imported again, unless another stored version is usable. If the damaged version had"
            " an int8 graph, run the import again with --calibrate.",
            name,
            error,
        )
        return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Return one of the exit codes in importing/report.py."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # BentoML sends usage data for each saved model unless told not to.
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    request = _parse(arguments)
    try:
        outcomes = import_models(request)
    except OSError as error:  # of the store as a whole; import_models reports one model's OSError as its failure
        logger.error("Nothing was imported: the model store can't be written: %s", error)
        return report.NONE
    for outcome in outcomes:
        if outcome.state == "untrained stand-in":
            logger.warning(
                "%s HAS NO TRAINED WEIGHTS: a stand-in of random numbers takes their place. Its answers mean nothing.",
                outcome.name,
            )
        elif outcome.in_vain:
            logger.error("%s was not imported: %s", outcome.name, outcome.problem)
    for line in report.losses(outcomes):
        print(line)
    print(report.table(outcomes))
    code = report.exit_code(outcomes)
    if code == report.SOME:
        print("The service starts with the models that are in the store. The routes of the others answer 503.")
    return code


def _parse(arguments: Sequence[str] | None) -> Request:
    parser = argparse.ArgumentParser(
        prog="python -m models.import_models",
        description="Import models into BentoML's model store: find, check and convert weights, and check the graphs.",
        epilog="Exit code: 0 = all requested models were imported or were there already; 3 = only a part of them, and"
        " the table says what to do for the others; 1 = none; 2 = wrong command line.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(CATALOGUE)}; default: all")
    origin = parser.add_mutually_exclusive_group()
    origin.add_argument("--source", metavar="PATH-OR-URL", help="the weights of the one named model")
    origin.add_argument(
        "--untrained-standins",
        action="store_true",
        help="for a trial without weights: use random numbers in place of weights that can't be found",
    )
    parser.add_argument(
        "--calibrate",
        metavar="FOLDER",
        type=Path,
        help="also quantize to int8, calibrated on the pictures in this folder and its subfolders, and report the loss;"
        " use pictures of your cameras (for person_reid: crops of people)",
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
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # an exit removes the scratch files
    sys.exit(main())
