"""What the node that leads tells the others of an attempt, and where they find the prepared rows: in the run folder."""

from job.config import RunConfig
from job.follow import standing
from job.host.crew import Crew
from job.host.preemption import Stop
from job.inputs import Inputs
from job.leaving import refuse_to_begin
from job.rundir import RunDir
from job.settled import store_rows
from job.storage.attempts import Owner
from job.storage.committer import Committer
from job.storage.heartbeat import Heartbeat
from job.storage.store import NotFound, ObjectStore


def tell_nodes(crew: Crew, config: RunConfig, store: ObjectStore, owner: Owner, inputs: Inputs, local: RunDir) -> None:
    """Have the other nodes bring what the ranks need. Raises: StorageError; Stopped."""
    if not crew.several:
        return
    from job.host.gang_messages import Begin

    try:
        store.get(f"prepared/{inputs.fingerprint}.json")
    except NotFound:
        store_rows(store, owner, inputs, local)
    crew.begin(
        Begin(
            attempt=owner.attempt,
            nonce=owner.nonce,
            config=config.to_dict(),
            fingerprint=inputs.fingerprint,
            base_source=inputs.base_source,
            base=inputs.base,
            tokenizer_source=inputs.tokenizer_source,
            tokenizer=inputs.tokenizer,
            init_source=inputs.init_source,
            init=inputs.init,
        )
    )


def gather_nodes(crew: Crew, stop: Stop, heart: Heartbeat, committer: Committer) -> None:
    """Returns when all nodes can launch. Raises: Stopped, also when one stays away for too long; Fenced."""

    def look_around() -> None:
        refuse_to_begin(stop)
        heart.check()

    crew.gather(look_around, lambda: standing(committer))
