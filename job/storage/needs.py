"""What a run needs of its store, in the order it is tried, each with what it means that it is there or is not."""

from job.storage.finding import Probe

REACH = Probe(
    "reach it, known credentials",
    "the store answers this machine, and knows who asks",
    "no run can begin or go on from this machine",
)
LIST = Probe(
    "list",
    "attempts and commits are found",
    "no attempt can see whether another owns the run, or where to go on",
    "s3:ListBucket",
    (REACH.name,),
)
PUT = Probe(
    "put", "attempts, records and heartbeats can be written", "nothing can be kept", "s3:PutObject", (REACH.name,)
)
GET = Probe(
    "get reads what was put",
    "a record that was written is read at once, whole",
    "no record can be trusted",
    "s3:GetObject",
    (PUT.name,),
)
LISTED = Probe(
    "list shows what was put",
    "a newer attempt is seen at once",
    "a newer attempt or commit is seen late: commits of two attempts may overlap, and resuming may miss the newest",
    "s3:ListBucket",
    (LIST.name, PUT.name),
)
CONDITIONAL = Probe(
    "put_if_absent refuses",
    "of two jobs started at once, one owns the run",
    "still usable, as claims then carry a nonce; lost: of two jobs started within seconds both may begin, until "
    "the later one fences the other",
    "s3:PutObject",
    (GET.name,),
    fatal=False,
)
OWN = Probe(
    "a retried claim is one's own",
    "a lost answer does not cost the claim",
    "after a lost answer a job may take its own claim for another's, and claim again",
    "s3:GetObject",
    (CONDITIONAL.name,),
    fatal=False,
)
RACE = Probe(
    "a race has one winner",
    "jobs that start in the same instant agree on who runs",
    "two jobs could both own one number and mix their commits: not a place for a run",
    "s3:PutObject",
    (CONDITIONAL.name,),
)
OVERWRITE = Probe(
    "overwrite",
    "others see that a run is alive",
    "heartbeats seem to stand still: a living run may be taken over",
    "s3:PutObject",
    (GET.name,),
)
UPLOAD = Probe(
    "upload a large file",
    "checkpoints can be committed",
    "no checkpoint can be committed",
    "s3:PutObject",
    (GET.name,),
)
DOWNLOAD = Probe(
    "download it again",
    "checkpoints come back, byte for byte",
    "no checkpoint can be gone on from",
    "s3:GetObject",
    (UPLOAD.name,),
)
DELETE = Probe(
    "delete",
    "old checkpoints are pruned",
    "old checkpoints stay and take up space; nothing else is lost",
    "s3:DeleteObject",
    (LIST.name, GET.name),
    fatal=False,
)
