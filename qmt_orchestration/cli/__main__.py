"""`python -m qmt_orchestration.cli`: the `qmt` command."""

from qmt_orchestration.cli.main import main

main()
