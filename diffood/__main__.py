"""`python -m diffood` is the command line."""

from diffood.cli import main

main()
