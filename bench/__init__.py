"""The figures of README.md, each printed by one command."""
