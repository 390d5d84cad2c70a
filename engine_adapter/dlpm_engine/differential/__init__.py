"""The differential tester: any engine in lockstep with the reference (docs/differential.md)."""
