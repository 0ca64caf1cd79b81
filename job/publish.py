"""The result: files first, `final/result.json` last, put-if-absent. Without it the run is not finished."""

import json

from job.config import RunConfig
from job.inputs import Inputs, Listener
from job.report.card import model_card
from job.rundir import RunDir
from job.storage.attempts import Owner, check_fence, now
from job.storage.checkpoints import upload_folder
from job.storage.committer import Committer
from job.storage.records import RESULT, Result
from job.storage.store import ObjectStore
from job.versions import versions


def publish(
    config: RunConfig,
    store: ObjectStore,
    owner: Owner,
    inputs: Inputs,
    local: RunDir,
    committer: Committer,
    listener: Listener,
) -> None:
    """Raises: Fenced when a newer attempt owns the run; StorageError."""
    check_fence(store, owner)
    folder = f"final/{owner.name}"
    best = config.best.step_of(committer.evaluations)
    step = best if config.best.final == "best" and best is not None else committer.last_step
    result = Result(
        folder=folder,
        files=[],
        kind="adapter" if config.lora else "full",
        chat=inputs.chat,
        step=step,
        steps=committer.last_step,
        best=next((done for done in committer.evaluations if done["step"] == best), None),
        attempt=owner.attempt,
        commit=committer.parent,
        evaluations=committer.evaluations,
        base=inputs.base_source,
        created=now(),
        versions=versions(),
    )
    (local.final / "README.md").write_text(model_card(config, result.model_dump(mode="json")), encoding="utf-8")
    (local.final / "provenance.json").write_text(
        json.dumps(result.model_dump(mode="json", exclude={"files"}), indent=1), encoding="utf-8"
    )
    files = upload_folder(store, local.final, folder)
    check_fence(store, owner)
    if not store.put_if_absent(RESULT, result.model_copy(update={"files": files}).dump()):
        check_fence(store, owner)
        listener.message(f"{store.uri}/{RESULT} was written by another attempt; this one's files are not used")
        return
    listener.message(f"finished: {result.kind} of step {result.step} in {store.uri}/{folder}")
