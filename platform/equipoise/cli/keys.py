"""`equipoise keys`: the API keys of an endpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("keys", epilog="Example: equipoise keys keys.json --add web-shop")(keys)


def keys(
    file: Annotated[Path, typer.Argument(help="Key file; made by the first key.")],
    add: Annotated[str | None, typer.Option(metavar="NAME", help="Make a key for whom it names.")] = None,
    revoke: Annotated[str | None, typer.Option(metavar="ID", help="Take a key out.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List, add or revoke API keys; endpoints that read the file follow within two seconds.

    A key is shown once, when it is made; the file keeps its SHA-256.
    """
    from equipoise.errors import ConfigError
    from equipoise_serving.api_keys import create_key, read_keys, revoke_key

    if add is not None and revoke is not None:
        raise ConfigError("give either --add or --revoke", where="equipoise keys")
    made = None
    if add is not None:
        made, stored = create_key(file, add)
    elif revoke is not None:
        revoke_key(file, revoke)
    held = read_keys(file)
    if as_json:
        listed = [key.model_dump(exclude={"sha256"}) for key in held]
        typer.echo(json.dumps({"keys": listed} | ({"key": made, "id": stored.id} if made else {}), indent=1))
        return
    for key in held:
        typer.echo(f"{key.id}  {key.created}  {key.name}")
    if made:
        typer.echo(f"key {stored.id}, shown this once: {made}")
