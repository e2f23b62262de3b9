"""`equipoise doctor`: what this machine has, and what that means."""

from __future__ import annotations

from typing import Annotated, Any

import typer


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor", epilog="Example: equipoise doctor --json")(doctor)


def doctor(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Say what this machine has (cores, instruction sets, GPU, engines) and what follows from it."""
    found = examine()
    if json:
        import json as encoder

        typer.echo(encoder.dumps(found, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None)
    for finding in found["findings"]:
        table.add_row("ok" if finding["good"] else "!!", finding["what"], finding["meaning"])
    Console().print(table)


def examine() -> dict[str, Any]:
    """The hardware description, its fingerprint, and findings with their meaning."""
    from equipoise import hardware
    from equipoise.engines import ENGINES, is_installed

    machine = hardware.describe_hardware()
    cores, memory = machine["cores"], machine["memory_gib"]
    bf16, int8, compiler = hardware.has_bf16(), hardware.has_int8(), hardware.has_compiler()
    gpus = machine["gpus"]

    def finding(good: bool, what: str, meaning: str) -> dict[str, Any]:
        return {"good": good, "what": what, "meaning": meaning}

    findings = [
        finding(cores >= 2, f"{machine['cpu']}, {cores} cores", "one training worker a core, one timed slot"),
        finding(memory >= 8, f"{memory} GiB of memory", "the demo needs 8 GiB"),
        finding(
            bf16, f"bf16 {'native' if bf16 else 'emulated'}", "trains in bf16" if bf16 else "trains in fp32"
        ),
        finding(
            int8,
            f"int8 products {'native (VNNI or AMX)' if int8 else 'emulated'}",
            "int8 models run faster than fp32" if int8 else "int8 saves size; it may not save time here",
        ),
        finding(
            True,
            f"{len(gpus)} GPUs" + (f": {', '.join(gpus)}" if gpus else ""),
            "trains on them" if gpus else "trains on the CPU",
        ),
        finding(
            compiler,
            "C++ compiler found" if compiler else "no C++ compiler",
            "DeepSpeed's shared-memory op can be built"
            if compiler
            else "DeepSpeed runs without its shared-memory op",
        ),
    ]
    for engine in ENGINES:
        there = is_installed(engine)
        version = machine["libraries"].get(engine) or ""
        meaning = (
            "searched by default" if there else f"pip install {engine}, or leave it out of search.engines"
        )
        findings.append(finding(there, f"engine {engine} {version}".strip(), meaning))
    return {"hardware": machine, "fingerprint": hardware.fingerprint(machine), "findings": findings}
