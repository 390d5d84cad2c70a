"""Theorems about the functions of `dlpm`, discharged by Z3 and cross-checked by cvc5."""
