"""`almanac forget-user`."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.configuration import DEFAULT_HOME
from flows.terminal import Home, Postgres, Verbose, reported, say


def forget_user(
    user: Annotated[str, typer.Argument(metavar="ID", help="The source's id of the user.")],
    home: Home = DEFAULT_HOME,
    postgres: Postgres = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also an id that is not known: its rows are left out once they come.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Remove a user from all that lies below a home, and leave the user's rows out of later deliveries.

    The input files stay as they are: remove the user there too. See docs/forget-a-user.md for what else stays.
    """
    with reported(verbose):
        from flows.secrets import resolve
        from tasks.forget import forget_user as forget

        done = forget(home.resolve(), user, resolve(postgres), force)
        durable = {
            name: count for name, count in done["rows"].items() if name.startswith(("raw", "quarantine", "mart"))
        }
        say("removed: " + (", ".join(f"{count:,} rows of {name}" for name, count in durable.items()) or "no rows"))
        say(f"written anew without the user: the warehouse and {len(done['files']):,} files for readers")
        if done["emptied"]:
            say(f"emptied, to be made again when needed: {', '.join(done['emptied'])}")
        if done["artifacts"]:
            say(f"deleted at the Prefect server: {done['artifacts']:,} samples of lists")
        if postgres:
            say("PostgreSQL holds the new files' content")
        for place in done["left"]:
            say(f"still named in: {place}")
        say(
            "the input files are yours to clean; rows of the user in them count as 'excluded: forgotten user' from now on"
        )
