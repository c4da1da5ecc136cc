"""`python -m regbench check pkg.module:Class`: does a regularizer keep what the engines count on?"""

import sys

import click

from regbench import cli


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=False)
def main() -> None:
    """Tools for your own regularizers; sweeps are started by `mlflow run`, see README.md."""


@main.command()
@click.argument("reg")
def check(reg: str) -> None:
    """Check a regularizer rule by rule: REG is pkg.module:Class, or a name. Exit code 1 if a rule is broken."""
    from regbench import regularizers

    found = regularizers.find(reg)
    from regbench import contract  # late: torch takes seconds to import, and a wrong name is refused at once

    broken = False
    for rule, how in contract.check(found):
        broken |= bool(how)
        click.echo(f"broken  {rule}: {how}" if how else f"ok      {rule}")
    sys.exit(int(broken))


if __name__ == "__main__":
    cli.run(main)
