"""The process that talks to Weights & Biases: rows come in on stdin, and whatever happens here cannot touch training.

Started as `python -m job.report.wandb_feed`. Each line of stdin is one JSON object: first `start`, then `log` and
`samples`, at last `finish`. An end of stdin without `finish` means that the supervisor is gone: this process leaves at
once, and W&B's own service process, which watches it, follows. One JSON object per line goes back on the first stdout;
everything that W&B prints goes to stderr, which the supervisor sends to a file.
"""

import json
import os
import queue
import sys
import threading
from typing import IO, Any

Message = dict[str, Any]

_INIT_SECONDS = 60.0


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # W&B's service process inherits only the log
    incoming: queue.SimpleQueue[Message] = queue.SimpleQueue()
    # Reading goes on while W&B waits for the network: the end of the supervisor is seen at any time.
    threading.Thread(target=_read, args=(sys.stdin, incoming), daemon=True).start()
    try:
        _feed(incoming, answers)
    except Exception as error:
        _answer(answers, error=_one_line(error))
        os._exit(1)


def _feed(incoming: "queue.SimpleQueue[Message]", answers: IO[str]) -> None:
    import wandb

    run = _start(wandb, incoming.get(), answers)
    run.define_metric("step")
    run.define_metric("*", step_metric="step")  # a resumed attempt goes on at its step, whatever W&B counted before
    while (message := incoming.get())["kind"] != "finish":
        if message["kind"] == "log":
            run.log({"step": message["step"], **message["values"]})
        else:
            table = wandb.Table(columns=message["columns"], data=message["rows"])
            run.log({"step": message["step"], "samples": table})
    if message["outcome"] == "stopped":
        run.mark_preempting()  # shown as preempted, not as failed
    run.finish(exit_code=0 if message["outcome"] == "done" else 1)


def _start(wandb: Any, start: Message, answers: IO[str]) -> Any:
    """The run; written offline where W&B cannot be reached or does not know us."""
    options = {
        "id": start["id"],
        "project": start["project"],
        "name": start["name"],
        "config": start["config"],
        "dir": start["folder"],
        "job_type": "sft",
        "resume": "allow",
    }
    settings = {"silent": True, "console": "off", "disable_git": True, "init_timeout": _INIT_SECONDS}
    try:
        run = wandb.init(**options, settings=wandb.Settings(**settings))
    except wandb.Error as error:
        _answer(answers, message=f"{_one_line(error)}; kept offline in the run folder, for `wandb sync`")
        return wandb.init(**options, mode="offline", settings=wandb.Settings(**settings))
    if run.url:
        _answer(answers, message=run.url)
    return run


def _read(source: IO[str], incoming: "queue.SimpleQueue[Message]") -> None:
    for line in source:
        message = json.loads(line)
        incoming.put(message)
        if message["kind"] == "finish":
            return
    os._exit(1)


def _answer(answers: IO[str], **fields: str) -> None:
    answers.write(json.dumps(fields) + "\n")


def _one_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


if __name__ == "__main__":
    main()
