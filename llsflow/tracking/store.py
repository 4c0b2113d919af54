"""The MLflow store of an experiment: opened once, safely among processes, and runs in it."""

from __future__ import annotations

import atexit
import contextlib
import getpass
import os
import sqlite3
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from llsflow.errors import UnavailableError
from llsflow.home import home, locked, storage_errors
from llsflow.schema.experiment import TrackingConfig
from llsflow.tracking import server, spool
from llsflow.tracking.client import import_client, is_server, probe, shown, sqlite_path, tracking_uri
from llsflow.tracking.operations import REF, Target, find_run, open_run
from llsflow.tracking.provenance import command_line, git_tags
from llsflow.tracking.recorder import Recorder, log
from llsflow.tracking.run import TAG_CHARACTERS, Run, milliseconds, model_name
from llsflow.tracking.spans import cut

# the page then opens on runs, charts and models instead of on traces
_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}


class Tracking:
    """Where runs are recorded.

    `connect` tells what is wrong with the store; after it no failure of the store reaches the caller.
    """

    def __init__(self, config: TrackingConfig) -> None:
        self.config = config
        self.uri = tracking_uri(config.uri)
        self._client: Any = None
        self._experiment_id = ""
        self._open: list[Recorder] = []

    def connect(self) -> None:
        """Open the store, made on first use, and the experiment; write what earlier runs could not.

        Raises:
            UnavailableError: nothing answers there, or what answers is no MLflow store that can be used.
            StorageError: the folder of the store cannot be written.
        """
        if self._client is not None:
            return
        probe(self.uri)
        make_client = import_client()
        database = sqlite_path(self.uri)
        if database:
            with storage_errors(database.parent):
                database.parent.mkdir(parents=True, exist_ok=True)
                database.touch()
        # four processes that make the schema at once all fail (MLflow 3.17)
        with locked("mlflow"), self._store_errors():
            if database:
                if not database.stat().st_size:
                    _make(database, make_client)
                _set_wal(str(database))
            client = make_client(self.uri)
            self._experiment_id = self._experiment(client)
        self._client = client
        atexit.register(self.close)
        self._write_leftovers()

    def open_run(
        self,
        name: str,
        *,
        parent_id: str | None = None,
        run_id: str | None = None,
        tags: Mapping[str, str] | None = None,
        description: str = "",
    ) -> Run:
        """Re-open the run `run_id` when it still exists, else begin one, under `parent_id`.

        Raises:
            UnavailableError: the store was not connected before, and does not answer.
        """
        self.connect()
        all_tags = self._tags(tags or {}, parent_id, description)
        target = self._target("")
        ref = f"pending-{uuid.uuid4().hex}"
        if run_id and run_id.startswith("pending-"):
            self._write_leftovers()
            ref = run_id if spool.Spool(self.uri, run_id) else ref
        try:
            if run_id and self._reopen(target, run_id, all_tags):
                ref = target.run_id
            elif ref != run_id:
                ref = open_run(target, {"name": name, "tags": all_tags, "time": milliseconds()})
        except Exception as error:
            log.warning(
                "MLflow does not take the run %r (%s); it is recorded later", name, str(error).partition("\n")[0]
            )
        recorder = Recorder(target, spool.Spool(self.uri, ref))
        if not target.run_id and not recorder.spool:
            op = {"op": "open", "name": name, "tags": {**all_tags, REF: ref}, "time": milliseconds()}
            recorder.spool.append(op)
        self._open.append(recorder)
        return Run(recorder, ref)

    def end_killed(self, run_id: str) -> None:
        """Mark a run that nobody writes any more, and its children, as KILLED; what has ended stays as it is."""
        from mlflow.exceptions import MlflowException

        children = f"tags.`mlflow.parentRunId` = '{run_id}' and attributes.status = 'RUNNING'"
        try:
            known = self._client.get_run(run_id).info
            if known.status != "RUNNING":
                return
            for run in self._client.search_runs([known.experiment_id], children):
                self._client.set_terminated(run.info.run_id, "KILLED")
            self._client.set_terminated(run_id, "KILLED")
        except MlflowException as error:
            log.debug("the run %s of a killed process could not be ended: %s", run_id, error)

    def folder_of_alias(self, name: str, alias: str) -> Path | None:
        """Return where the files of a registered model's version lie, where one of ours has the alias; else None.

        Raises:
            UnavailableError: the store does not answer.
        """
        from mlflow.exceptions import MlflowException

        database = sqlite_path(self.uri)
        if database and not database.exists():
            return None
        self.connect()
        try:
            version = self._client.get_model_version_by_alias(model_name(name), alias)
        except MlflowException as error:
            # SQL stores call a name that was never registered an invalid alias
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise UnavailableError(f"MLflow's model registry does not answer: {_reason(error)}") from error
        folder = version.tags.get("llsflow.folder")
        return Path(folder) if folder else None

    def page(self, run_id: str = "") -> str:
        """Return the address of a run's MLflow page; without a run, of the list of runs."""
        base = self.uri if is_server(self.uri) else _page_address()
        path = f"#/experiments/{self._experiment_id or '0'}/runs/{run_id}".rstrip("/")
        # else a browser that is new to MLflow shows runs among GenAI evaluations, without their models
        return f"{base}/{path}?workflowType=machine_learning"

    def close(self) -> None:
        """Write what every run of this process still holds; for runs that nobody finished."""
        for recorder in self._open:
            recorder.close()
        self._open.clear()

    def _target(self, run_id: str) -> Target:
        return Target(self._client, self._experiment_id, run_id, server=is_server(self.uri))

    def _tags(self, tags: Mapping[str, str], parent_id: str | None, description: str) -> dict[str, str]:
        own = {"mlflow.user": _user(), "mlflow.source.type": "LOCAL", "mlflow.source.name": command_line()}
        own |= git_tags()
        if parent_id:
            own["mlflow.parentRunId"] = parent_id
        if description:
            own["mlflow.note.content"] = description
        return {key: cut(str(value), TAG_CHARACTERS) for key, value in {**own, **tags}.items()}

    def _reopen(self, target: Target, run_id: str, tags: dict[str, str]) -> bool:
        from mlflow.entities import RunTag
        from mlflow.exceptions import MlflowException

        found = find_run(target, run_id) if run_id.startswith("pending-") else run_id
        try:
            run = self._client.get_run(found) if found else None
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            run = None
        if run is None or run.info.lifecycle_stage != "active":
            return False
        self._client.update_run(found, status="RUNNING")
        self._client.log_batch(found, tags=[RunTag(key, value) for key, value in tags.items()])
        target.run_id, target.reopened = found, True
        return True

    def _experiment(self, client: Any) -> str:
        from mlflow.exceptions import MlflowException

        name = self.config.experiment
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            # relative places would follow the current folder; a server chooses its own
            location = None if is_server(self.uri) else (home() / "mlflow" / "artifacts").as_uri()
            try:
                return str(client.create_experiment(name, artifact_location=location, tags=_EXPERIMENT_TAGS))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                experiment = client.get_experiment_by_name(name)
        if experiment.lifecycle_stage != "active":
            raise UnavailableError(
                f"the MLflow experiment {name!r} was deleted: restore it with `mlflow experiments restore "
                f"--experiment-id {experiment.experiment_id}`, or set tracking.experiment to another name"
            )
        return str(experiment.experiment_id)

    def _write_leftovers(self) -> None:
        for left in spool.leftovers(self.uri):
            run_id = "" if left.ref.startswith("pending-") else left.ref
            recorder = Recorder(self._target(run_id), left)
            recorder.close()

    @contextlib.contextmanager
    def _store_errors(self) -> Iterator[None]:
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
            raise UnavailableError(f"the MLflow store {shown(self.uri)} cannot be used: {_reason(error)}") from error


def serve(host: str = "127.0.0.1", port: int = 5000, config: TrackingConfig | None = None) -> server.Server:
    """Return the MLflow page over this home's store: the running one, or a new one, on a free port.

    Raises:
        UnavailableError: the store cannot be used, or the server does not start.
        StorageError: the folder of the store cannot be written.
    """
    tracking = Tracking(config or TrackingConfig())
    tracking.connect()
    return server.serve_store(tracking.uri, host, port)


def _page_address() -> str:
    page = server.running_page()
    return page.url if page else "http://127.0.0.1:5000"


def _reason(error: Exception) -> str:
    text = str(error).strip()
    if "out-of-date database schema" in text:
        return "it was made by another MLflow version: run `mlflow db upgrade` on it, or set tracking.uri"
    if "not a database" in text:
        return "the file is not a database: move it away, or set tracking.uri"
    return text.splitlines()[0][:300] if text else type(error).__name__


def _make(database: Path, make_client: Callable[[str], Any]) -> None:
    """Make a new store's schema aside: a process that is killed in the middle leaves nothing half-made to others."""
    aside = database.with_name(f".{database.name}.new")
    for left in database.parent.glob(f"{aside.name}*"):  # by one that was killed; who is here has the lock
        left.unlink()
    # closes its connections when it is done with
    make_client(f"sqlite:///{aside}")._tracking_client.store.engine.dispose()
    aside.replace(database)


def _set_wal(path: str) -> None:
    # readers (the page) and writers (the runs) then do not wait for each other; the database remembers it
    with contextlib.closing(sqlite3.connect(path, timeout=20)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
