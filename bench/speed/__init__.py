"""`bench speed`: how fast rows train, decode and start on this machine, also beside another program."""
