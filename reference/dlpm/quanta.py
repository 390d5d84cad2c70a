"""What a refill pays: a number that engines are configured with, and that ledgers, bounds and logs share."""

from __future__ import annotations

from collections.abc import Mapping

from dlpm.errors import InputError
from dlpm.request import ClientId


class Quanta:
    """``Q^u``: the service each client gets at a refill, in weighted tokens [DLPM Table 1].

    ``default`` holds for every client not named in ``clients``.

    Raises:
        InputError: if a quantum is not an integer > 0.
    """

    def __init__(self, default: int, clients: Mapping[ClientId, int] | None = None) -> None:
        """Keep the default quantum and the clients with one of their own."""
        self.default = default
        self.clients = dict(clients or {})
        for name, value in (("default", default), *self.clients.items()):
            if value <= 0:
                raise InputError(f"expected an integer > 0, found {value!r}", field=f"quantum.{name}")

    def of(self, client: ClientId) -> int:
        """Quantum of ``client``, in weighted tokens."""
        return self.clients.get(client, self.default)
