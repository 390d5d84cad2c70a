"""The algorithms of DLPM and D2LPM in plain Python; standard library only. Start with `ledger` and `worker`."""
