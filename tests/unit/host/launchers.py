"""The variables that launchers set on a node, as they set them: from their documentation and sources."""

Variables = dict[str, str]


def slurm(rank: int = 0, nodes: int = 2, tasks: str = "1(x2)", job: str = "4217") -> Variables:
    """Within `srun`, in a step of all nodes."""
    hosts = f"gpu[08-{7 + nodes:02d}]"
    return {
        "SLURM_JOB_ID": job,
        "SLURM_JOB_NUM_NODES": str(nodes),
        "SLURM_NNODES": str(nodes),
        "SLURM_JOB_NODELIST": hosts,
        "SLURM_NODELIST": hosts,
        "SLURM_NODEID": str(rank),
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": "0",
        "SLURM_NTASKS": str(nodes),
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NUM_NODES": str(nodes),
        "SLURM_STEP_NODELIST": hosts,
        "SLURM_STEP_NUM_TASKS": str(nodes),
        "SLURM_STEP_TASKS_PER_NODE": tasks,
    }


def slurm_batch_script(nodes: int = 2) -> Variables:
    """What the script itself has, which runs on the first node, outside of any step."""
    return {name: value for name, value in slurm(0, nodes).items() if not name.startswith("SLURM_STEP")}


def trainer_v2(rank: int = 0, nodes: int = 2, ranks: str = "auto") -> Variables:
    return {
        "PET_NNODES": str(nodes),
        "PET_NPROC_PER_NODE": ranks,
        "PET_NODE_RANK": str(rank),
        "PET_MASTER_ADDR": "chat-node-0-0.chat",
        "PET_MASTER_PORT": "29500",
        "JOB_COMPLETION_INDEX": str(rank),
    }


def pytorch_job(rank: int = 0, nodes: int = 2, ranks: str = "8") -> Variables:
    return {
        "PYTHONUNBUFFERED": "1",
        "MASTER_PORT": "23456",
        "PET_MASTER_PORT": "23456",
        "MASTER_ADDR": "chat-master-0",
        "PET_MASTER_ADDR": "chat-master-0",
        "WORLD_SIZE": str(nodes * int(ranks)),
        "RANK": str(rank),
        "PET_NODE_RANK": str(rank),
        "PET_NPROC_PER_NODE": ranks,
        "PET_NNODES": str(nodes),
    }


def old_pytorch_job(rank: int = 0, nodes: int = 2) -> Variables:
    return {"MASTER_PORT": "23456", "MASTER_ADDR": "chat-master-0", "WORLD_SIZE": str(nodes), "RANK": str(rank)}


def torchrun(rank: int = 0, nodes: int = 2, ranks: int = 1) -> Variables:
    return {
        "LOCAL_RANK": "0",
        "RANK": str(rank * ranks),
        "GROUP_RANK": str(rank),
        "ROLE_RANK": str(rank),
        "ROLE_NAME": "default",
        "LOCAL_WORLD_SIZE": str(ranks),
        "WORLD_SIZE": str(nodes * ranks),
        "GROUP_WORLD_SIZE": str(nodes),
        "ROLE_WORLD_SIZE": str(nodes * ranks),
        "MASTER_ADDR": "10.0.0.1",
        "MASTER_PORT": "29500",
        "TORCHELASTIC_RUN_ID": "none",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }


def aws_batch(index: int = 0, nodes: int = 2, main: int = 0) -> Variables:
    found = {
        "AWS_BATCH_JOB_NUM_NODES": str(nodes),
        "AWS_BATCH_JOB_NODE_INDEX": str(index),
        "AWS_BATCH_JOB_MAIN_NODE_INDEX": str(main),
    }
    return found if index == main else {**found, "AWS_BATCH_JOB_MAIN_NODE_PRIVATE_IPV4_ADDRESS": "10.0.0.7"}


def indexed_job(rank: int = 0, nodes: int = 2) -> Variables:
    return {
        "JOB_COMPLETION_INDEX": str(rank),
        "SFT_JOB_NODES": str(nodes),
        "SFT_JOB_LEADER": "chat-0.chat",
    }


def open_mpi(rank: int = 0, nodes: int = 2, ranks: int = 1) -> Variables:
    return {
        "OMPI_COMM_WORLD_SIZE": str(nodes * ranks),
        "OMPI_COMM_WORLD_RANK": str(rank * ranks),
        "OMPI_COMM_WORLD_LOCAL_SIZE": str(ranks),
        "OMPI_COMM_WORLD_LOCAL_RANK": "0",
    }
