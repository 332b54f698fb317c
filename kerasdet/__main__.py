"""`python -m kerasdet` is the shell command."""

from kerasdet.cli import main

main()
