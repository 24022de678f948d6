"""The command `bench`: argument parsing and one function per subcommand."""
