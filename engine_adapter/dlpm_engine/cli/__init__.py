"""The command line `dlpm`: one command a file, registered in `main`."""
