"""slurm.conf and gres.conf of the tests' cluster, as text; where each setting comes from stands beside it."""

import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

CPUS = 16  # of a node, whatever the machine has
GPUS = 2

# What a site's prolog does: a folder on the node's own disk for each job.
TASK_PROLOG = """#!/bin/sh
local={folder}/local/$SLURMD_NODENAME
mkdir -p -m 1777 $local 2>/dev/null
mkdir -p $local/$SLURM_JOB_ID && echo "export SLURM_TMPDIR=$local/$SLURM_JOB_ID"
"""


def node_name(number: int) -> str:
    """0x7f000001 is 127.0.0.1 to getaddrinfo (inet_aton(3)), and a plain name with digits at its end to Slurm."""
    return f"0x7f{number:06x}"


def conf(folder: Path, port: int, ports: Mapping[str, int], user: str, changes: Mapping[str, str]) -> str:
    host = socket.gethostname().split(".")[0]
    values = {
        "ClusterName": "test",
        "SlurmctldHost": f"{host}(127.0.0.1)",
        "SlurmctldPort": str(port),
        "FirstJobId": str(
            port
        ),  # nodes meet at a port that follows from the job: two clusters of this machine's do not
        "SlurmUser": user,
        "SlurmdUser": user,
        "AuthType": "auth/munge",
        "CredType": "cred/munge",
        "AuthInfo": f"socket={folder}/munge/socket,cred_expire=10",  # a requeued job waits that long; usually 120 s
        "StateSaveLocation": f"{folder}/state",
        "SlurmdSpoolDir": f"{folder}/spool/%n",
        "SlurmctldPidFile": f"{folder}/run/slurmctld.pid",
        "SlurmdPidFile": f"{folder}/run/%n.pid",
        "SlurmctldDebug": "verbose",
        "SlurmdDebug": "verbose",
        "ProctrackType": "proctrack/linuxproc",
        "TaskPlugin": "task/none",
        "TaskProlog": f"{folder}/task_prolog",
        "JobAcctGatherType": "jobacct_gather/none",
        "MpiDefault": "none",
        "SelectType": "select/cons_tres",
        "SelectTypeParameters": "CR_Core",
        "SlurmdParameters": "config_overrides",  # as many CPUs as said here
        "GresTypes": "gpu",
        "ReturnToService": "2",
        "SlurmdTimeout": "10",
        "KillWait": "5",
        "OverTimeLimit": "0",
        "EnforcePartLimits": "NO",
        "JobRequeue": "1",
        "PreemptType": "preempt/partition_prio",
        "PreemptMode": "REQUEUE",
        "SchedulerType": "sched/backfill",
        "SchedulerParameters": "sched_interval=2,bf_interval=2,sched_min_interval=100000",
        "SlurmctldParameters": "",
        **changes,
    }
    lines = [f"{name}={value}" for name, value in values.items() if value]
    for name, own in ports.items():
        lines.append(
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={own} CPUs={CPUS} RealMemory=4000 "
            f"Gres=gpu:{GPUS} State=UNKNOWN"
        )
    everywhere = f"Nodes={','.join(ports)} MaxTime=INFINITE State=UP OverSubscribe=NO"
    lines += [
        f"PartitionName=low {everywhere} Default=YES PriorityTier=1 GraceTime=30",
        f"PartitionName=abrupt {everywhere} PriorityTier=1 GraceTime=0",
        f"PartitionName=high {everywhere} PriorityTier=10 PreemptMode=OFF",
    ]
    return "\n".join(lines) + "\n"


def gres(nodes: Sequence[str]) -> str:
    """Devices that every machine has stand in for GPUs."""
    return "".join(f"NodeName={name} Name=gpu File={file}\n" for name in nodes for file in ("/dev/null", "/dev/zero"))
