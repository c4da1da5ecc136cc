"""`python -m regbench sweep | notebook | report | export | import | check`; also the console script `regbench`."""

import sys

import click

from regbench.commands import check, exit_code, export, import_, notebook, report, sweep


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=False)
def main() -> None:
    """Weight regularizers compared on image classification, tracked in MLflow: see README.md."""


COMMANDS = {
    "sweep": sweep, "notebook": notebook, "report": report, "export": export, "import": import_, "check": check,
}  # fmt: skip
for name, module in COMMANDS.items():
    main.add_command(module.main, name)


def script() -> None:
    """Run the console script: modules in the folder in which it is started are found, as by `python -m regbench`."""
    sys.path.insert(0, "")
    exit_code.run(main)


if __name__ == "__main__":
    exit_code.run(main)
