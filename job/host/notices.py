"""A cloud's notice that it takes this machine away becomes the one stop.

One daemon thread asks every few seconds, only where the firmware's strings (or SFT_JOB_CLOUD) name the cloud; on any
other machine nothing is asked. A service that hangs, refuses or talks nonsense stops nothing and is asked less often.
"""

import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from job.errors import ConfigError
from job.host.clouds import DMI, Azure, Ec2, Gce, Notice, Service, detected
from job.host.endtime import asked_again, job_seconds_left
from job.host.launcher import STOP_SIGNALS
from job.host.preemption import Stop

CLOUD = "SFT_JOB_CLOUD"
AZURE_ENDPOINT = "SFT_JOB_AZURE_METADATA_ENDPOINT"
LINK_LOCAL = "http://169.254.169.254"  # the address, not a name: looking up a name knows no time-out
QUIET_AFTER = 30  # failures in a row; Azure's first answer alone may take two minutes
QUIET_SECONDS = 60.0
END = "the job's end time"
LOOK_AGAIN_SECONDS = 20.0  # before the stop would be asked for: once, as each question is work for Slurm's controller
MOVED_SECONDS = 10.0  # less is how Slurm rounds
REQUEUE_SECONDS = 15.0  # for the batch script, once the last supervisor has left
LEAD_SECONDS = 120.0  # what is announced for later is acted upon so long before


def watch(
    stop: Stop, environment: Mapping[str, str], dmi: Path = DMI, say: Callable[[str], None] = lambda line: None
) -> list[str]:
    """Watch for everything but signals that may end this job; lines for the log say what is watched.

    `say` takes those that come later, from a thread.

    Raises: ConfigError when SFT_JOB_CLOUD or SFT_JOB_END_TIME cannot be understood.
    """
    lines = []
    if (left := _usable(job_seconds_left(environment), environment)) is not None:
        stop.ends_in(END, left)
        threading.Thread(target=_mind_the_end, args=(stop, left, environment, say), name="end", daemon=True).start()
        lines.append(f"this job ends in {left / 60:.0f} min; it stops by itself {stop.grace_seconds:.0f}s before")
    if (service := cloud_service(environment, dmi)) is not None:
        threading.Thread(target=_poll, args=(service, stop), name="notices", daemon=True).start()
        lines.append(f"watching for notices of {service.name}")
    return lines


def cloud_service(environment: Mapping[str, str], dmi: Path = DMI) -> Service | None:
    """The metadata service to ask: as SFT_JOB_CLOUD says, else of the cloud that the firmware names."""
    cloud = environment.get(CLOUD, "").strip() or detected(dmi)
    if cloud == "ec2" and environment.get("AWS_EC2_METADATA_DISABLED", "").lower() != "true":
        by_mode = environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "").lower()
        default = "http://[fd00:ec2::254]" if by_mode == "ipv6" else LINK_LOCAL
        return Ec2(environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or default)
    if cloud == "gce":
        host = environment.get("GCE_METADATA_HOST")
        return Gce(f"http://{host}" if host else LINK_LOCAL)
    if cloud == "azure":
        return Azure(environment.get(AZURE_ENDPOINT) or LINK_LOCAL)
    if cloud not in ("ec2", "none"):
        raise ConfigError(f"{CLOUD} is {cloud!r}: set it to ec2, gce, azure or none, or leave it unset")
    return None


def pause_seconds(service: Service, failures: int) -> float:
    """Until the next question, after so many failures in a row."""
    return service.poll_seconds if failures < QUIET_AFTER else QUIET_SECONDS


def due(notice: Notice, grace_seconds: float) -> bool:
    """Time enough for a checkpoint is all a stop needs; until then steps are worth more, and plans change."""
    return notice.seconds is None or notice.seconds <= max(LEAD_SECONDS, grace_seconds)


def _usable(left: float | None, environment: Mapping[str, str]) -> float | None:
    """Seconds of `left` after which all has to be over here: a Slurm job that its limit ended is not queued again."""
    return left - REQUEUE_SECONDS if left is not None and "SLURM_JOB_ID" in environment else left


def _mind_the_end(stop: Stop, left: float, environment: Mapping[str, str], say: Callable[[str], None]) -> None:
    """The limit may have been raised since: looked at shortly before the stop, as often as it moved."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # they are to wake the main thread
    end = time.monotonic() + left
    while True:
        time.sleep(max(0.0, end - stop.grace_seconds - LOOK_AGAIN_SECONDS - time.monotonic()))
        later = _usable(asked_again(environment), environment)
        if later is None or time.monotonic() + later < end + MOVED_SECONDS:
            return
        end = time.monotonic() + later
        stop.ends_in(END, later)
        say(f"the job's limit was raised: it ends in {later / 60:.0f} min")


def _poll(service: Service, stop: Stop) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # they are to wake the main thread
    failures = 0
    while True:
        try:
            notice, failures = service.notice(), 0
        except Exception:  # whatever comes out of the network, it is no reason to stop or to stop watching
            notice, failures = None, failures + 1
        if notice is not None and due(notice, stop.grace_seconds):
            stop.request(notice.reason, notice.seconds)
        time.sleep(pause_seconds(service, failures))
