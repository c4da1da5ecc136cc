"""`check`: does a regularizer keep what the engines count on?"""

import sys

import click

from regbench import regularizers


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("reg")
def main(reg: str) -> None:
    """Check a regularizer rule by rule: REG is pkg.module:Class, or a name. Exit code 1 if a rule is broken."""
    found = regularizers.find(reg)
    from regbench.regularizers.contract import rules

    broken = False
    for rule, how in rules.check(found):
        broken |= bool(how)
        click.echo(f"broken  {rule}: {how}" if how else f"ok      {rule}")
    if found.has("penalty") and not broken:
        from regbench.regularizers.contract import speed

        click.echo(f"speed   {speed.compare(found)}")
    sys.exit(int(broken))
