"""The `qmt` command. `main` puts it together; each other module holds the subcommands of one part of the system."""
