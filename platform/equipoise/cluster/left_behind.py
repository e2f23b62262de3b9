"""What stands in a cluster when a command ends in a fault."""

from __future__ import annotations

from equipoise.errors import EquipoiseError


def naming(error: EquipoiseError, created: list[str], command: str) -> EquipoiseError:
    """The same error, with what is there already and the one command that removes it.

    Args:
        error: what ended the command.
        created: as `KIND NAMESPACE/NAME`; where there is none, the error stays as it is.
        command: that removes them.
    """
    if not created:
        return error
    rest = f"{', '.join(created)} {'is' if len(created) == 1 else 'are'} there; `{command}` removes it"
    remedy = f"{error.remedy}; {rest}" if error.remedy else rest
    return type(error)(error.what, where=error.where, value=error.value, remedy=remedy)
