"""
What the parts of the client need of each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from yurt.http.wire import Wire

if TYPE_CHECKING:
    from yurt.http.client_connection import ClientConnection
    from yurt.http.client_exchange import ClientExchange


class Carrier(Protocol):
    """
    What an exchange needs of the connection that carries it.
    """

    wire: Wire
    full: bool

    def abandon(self) -> None: ...

    def desert(self) -> None: ...


class Exchanges(Protocol):
    """
    What an exchange needs of the upstream that it belongs to.
    """

    name: str

    def exchange_over(self, exchange: ClientExchange) -> None: ...


class Pool(Protocol):
    """
    What a connection needs of the upstream that it belongs to.
    """

    streams: set[ClientConnection]

    def await_word(self, exchange: ClientExchange) -> None: ...

    def word_came(self) -> None: ...

    def dial_for(self, exchange: ClientExchange) -> None: ...

    def exchange_over(self, exchange: ClientExchange) -> None: ...

    def connection_idle(self, connection: ClientConnection) -> None: ...

    def connection_lost(self, connection: ClientConnection) -> None: ...
