"""The subcommands, one file each: the only place where converters, runtimes and boards meet."""
