"""Where a rank's time goes until its first step, seen from outside: a thread in it looks at what its main thread does.

`environment_for(folder)` makes Python start that thread in every rank (as `sitecustomize`), and `spent(folder)` reads
what it wrote. The program itself knows nothing of it. The first step ends here with its backward pass.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path
from types import FrameType

LOOK_SECONDS = 0.01
PHASES = (  # the first of them that is on the stack counts
    ("restore", ("restore_parameters", "restore_optimizer", "_load_from_checkpoint", "_load_optimizer_and_scheduler")),
    ("first step", ("_inner_training_loop", "_run_epoch")),
    ("load", ("train_as_told",)),
)
FOLDER_VARIABLE = "BENCH_RANK_PHASES"


def environment_for(folder: Path) -> dict[str, str]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(
        "import sys\n"
        "if '-m' in sys.orig_argv and 'job.train' in sys.orig_argv:\n"
        "    from tests.bench.rank_phases import watch\n"
        "    watch()\n",
        encoding="utf-8",
    )
    root = str(Path(__file__).parents[2])
    return {FOLDER_VARIABLE: str(folder), "PYTHONPATH": os.pathsep.join((str(folder), root))}


def watch() -> None:
    main = threading.get_ident()
    threading.Thread(target=_look, args=(main, time.time()), daemon=True).start()


def _look(main: int, began: float) -> None:
    seconds: dict[str, float] = {}
    last, steps = time.time(), False
    while True:
        time.sleep(LOOK_SECONDS)
        frame = sys._current_frames().get(main)
        names = set(_names(frame))
        now = time.time()
        phase = next((phase for phase, found in PHASES if names & set(found)), "import")
        seconds[phase] = seconds.get(phase, 0.0) + now - last
        last = now
        steps = steps or "training_step" in names
        if steps and "training_step" not in names:
            break
    path = Path(os.environ[FOLDER_VARIABLE]) / f"{os.getpid()}.json"
    path.write_text(json.dumps({"began": began, "seconds": seconds}), encoding="utf-8")


def _names(frame: FrameType | None) -> list[str]:
    found = []
    while frame is not None:
        found.append(frame.f_code.co_name)
        frame = frame.f_back
    return found


def spent(folder: Path) -> tuple[float, dict[str, float]]:
    """(time.time() at which the newest rank began, seconds by phase). The file appears with the first step."""
    newest = max(folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    found = json.loads(newest.read_text())
    return found["began"], found["seconds"]
