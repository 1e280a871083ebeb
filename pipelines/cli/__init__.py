"""The `strata` command. `python -m pipelines.cli` is the same.

Importing it costs typer and nothing else: what a command needs is imported when the command runs.
"""

import sys


def main() -> None:
    """Run the command line and exit with its status: 0 done, 1 failed, 2 misused, 130 interrupted."""
    from pipelines.cli.commands import strata  # noqa: PLC0415 - `import pipelines.cli` alone stays free

    try:
        strata(prog_name="strata")
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `strata config show | head -1`
        sys.stderr.close()
        sys.exit(1)
    except Exception as wrong:  # noqa: BLE001 - the last stop before a user who wants a sentence, not a traceback
        from pipelines.cli.show import failure  # noqa: PLC0415 - only where something failed

        failure(wrong, as_json="--json" in sys.argv)
        sys.exit(1)
