"""A plan as a person reads it: on a terminal or in a file, 80 columns wide or more."""

import json

from rich.console import Console
from rich.table import Table
from rich.text import Text

from job.planning import Grace, Memory, Plan
from job.report.heading import heading
from job.report.wording import counted, spoken_bytes, spoken_seconds

MOST_COLUMNS = 100
PARTS = ("weights", "adapter", "gradients", "optimizer", "activations", "logits", "buffers")
GIB = 1 << 30


def show(console: Console, plan: Plan) -> None:
    """What matters most, whether it fits and how long it takes, comes last, where one looks."""
    if console.width > MOST_COLUMNS:
        console.width = MOST_COLUMNS
    heading(console, "Plan", "as the run goes on" if plan["begun"] else "the run has not begun")
    _facts(console, [("run", plan["run"]), *_about(plan)])
    unit = _unit(plan["memory"])
    heading(console, f"Memory of each {'GPU' if plan['machine']['device'] == 'cuda' else 'rank'} in {unit[0]}", "")
    console.print(_memory(plan, unit[1]))
    console.print()
    chosen = plan["chosen"]
    console.print(Text(f"  {chosen['why']}", "bold"), soft_wrap=False)
    if chosen["warning"]:
        console.print(Text(f"  ! {chosen['warning']}", "yellow"))
    heading(console, "What it takes", "")
    _facts(console, _costs(plan))
    if plan["launch"]:
        heading(console, "Launch", "each rank's variables and command, which the job starts by itself")
        for one in plan["launch"]:
            variables = " ".join(f"{name}={value}" for name, value in one["environment"].items())
            console.print(Text(f"  {variables} {' '.join(one['argv'])}"), soft_wrap=True)
    if plan["deepspeed"] is not None:
        heading(console, "DeepSpeed", "the config that the job makes")
        console.print(Text(json.dumps(plan["deepspeed"], indent=2)), soft_wrap=True)


def _facts(console: Console, listed: list[tuple[str, str]]) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for name, value in listed:
        table.add_row(f"  {name}", Text(value))
    console.print(table)


def _about(plan: Plan) -> list[tuple[str, str]]:
    model, machine, data, steps = plan["model"], plan["machine"], plan["data"], plan["steps"]
    share, size = model["trained"] / model["parameters"], billions(model["parameters"])
    what = f"LoRA on {counted(model['adapters'], 'linear layer')}" if model["adapters"] else "every parameter"
    about = "" if steps["measured"] else "about "
    guess = " (assumed from its config: its weights bring no headers)" if model["assumed"] else ""
    each, nodes = machine["ranks_per_node"], machine["nodes"]
    where = "on 1 node" if nodes == 1 else f"on each of {nodes} nodes"
    on = f"{each} x {machine['gpu']} {where}" if machine["gpu"] else f"{counted(each, 'rank')} on the CPU {where}"
    if machine["gpu_bytes"]:
        on += f", {machine['gpu_bytes'] / GIB:.1f} GiB each"
    done = f", {steps['done']:,} of them done" if steps["done"] else ""
    per_epoch = counted(steps["steps_per_epoch"], "step")
    return [
        ("base", model["base"]),
        ("model", f"{model['kind']}, {size} parameters{guess}, {spoken_bytes(model['stored_bytes'])}"),
        ("trains", f"{what}: {billions(model['trained'])} parameters ({share:.2%})"),
        ("machine", f"{on}; computes in {machine['precision']}"),
        ("data", f"{about}{counted(data['rows'], 'row')}, {billions(data['tokens'])} tokens an epoch; {data['how']}"),
        ("steps", f"{about}{steps['steps']:,}{done}, {per_epoch} an epoch, {steps['tokens_per_step']:,} tokens each"),
    ]


def _unit(memory: list[Memory]) -> tuple[str, int]:
    """GiB, unless all is far smaller."""
    return ("GiB", GIB) if max(row["total_bytes"] for row in memory) >= GIB else ("MiB", 1 << 20)


def _memory(plan: Plan, unit: int) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("", no_wrap=True)
    shown = [name for name in PARTS if any(row["parts"][name] for row in plan["memory"])]
    for name in (*shown, "total"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in plan["memory"]:
        chosen = row["strategy"] == plan["chosen"]["strategy"]
        fits = {True: "", False: "does not fit", None: ""}[row["fits"]]
        host = f"+{_shown(row['host_bytes'], unit)} in the host" if row["host_bytes"] else ""
        cells = [_shown(row["parts"][name], unit) for name in shown]
        table.add_row(
            f"{'▶' if chosen else ' '} {row['strategy']}",
            *cells,
            Text(_shown(row["total_bytes"], unit), "bold"),
            " ".join(part for part in (fits, host) if part),
            style="green" if chosen else "dim" if row["fits"] is False else "",
        )
    return table


def _host(plan: Plan) -> str:
    """Of the node that takes the snapshots; the others need the offloaded part alone."""
    (row,) = (row for row in plan["memory"] if row["strategy"] == plan["chosen"]["strategy"])
    offloaded = row["host_bytes"] * plan["machine"]["ranks_per_node"]
    parts = {"a snapshot": plan["checkpoint"]["bytes"], **({"offloaded": offloaded} if offloaded else {})}
    return f"{spoken_bytes(sum(parts.values()))} on node 0 while it trains: {_listed(parts)}"


def _costs(plan: Plan) -> list[tuple[str, str]]:
    checkpoint, grace, hours = plan["checkpoint"], plan["grace"], plan["hours"]
    every = f"every {checkpoint['interval']}"
    if checkpoint["interval_seconds"] is not None:
        every = f"every {spoken_seconds(checkpoint['interval_seconds'])} until interruptions are known"
    disk = plan["disk"]
    found = [
        (
            "checkpoint",
            f"{spoken_bytes(checkpoint['bytes'])}, {every}: blocks training for {checkpoint['blocked_seconds']:.2f} s, "
            f"is stored in {checkpoint['stored_seconds']:.1f} s",
        ),
        ("grace", _grace(grace)),
        ("host memory", _host(plan)),
        ("disk", f"{spoken_bytes(sum(disk.values()))} on a node: {_listed(disk)}"),
    ]
    if hours["hours"] is None:
        found.append(("time", "not known: nothing was measured yet, and the peak of this device is not known"))
    else:
        how = "measured" if hours["measured"] else "assumed"
        found.append(
            ("time", f"{_spoken_hours(hours['hours'])}, {hours['step_seconds']:.2f} s a step ({how})"),
        )
    if hours["assumed"]:
        found.append(("assumed", ", ".join(hours["assumed"])))
    return found


def _grace(grace: Grace) -> str:
    given = f"you gave {grace['given_seconds']:.0f} s"
    if grace["needed_seconds"] is None:
        return f"{given}; what TERM to exit needs is not known before a step was measured"
    needs = f"TERM to exit with a new checkpoint needs {grace['needed_seconds']:.0f} s, {given}"
    if grace["enough"]:
        return needs
    return f"{needs}: a stop leaves on the commit before it; raise grace where the scheduler waits as long"


def _listed(sizes: dict[str, int]) -> str:
    return ", ".join(f"{name} {spoken_bytes(size)}" for name, size in sizes.items() if size)


def _spoken_hours(hours: float) -> str:
    return spoken_seconds(hours * 3600)


def _shown(size_bytes: int, unit: int) -> str:
    size = size_bytes / unit
    return "-" if not size_bytes else f"{size:.1f}" if size >= 0.05 else "<0.1"


def billions(number: float) -> str:
    """`2.51 B`, `19.6 M`, `102 k`."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f}"
