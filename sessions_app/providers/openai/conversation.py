"""What both directions of one conversation must know of it: its items and our open requests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

#: The only PCM rate of the Realtime API; s16le mono.
RATE_HZ = 24_000

#: `previous_item_id` of an item that is to come before all others.
HEAD = "root"

_ITEMS_KEPT = 64
_REQUESTS_KEPT = 32


@dataclass(slots=True)
class Item:
    """One message of the agent, as far as the wire has told."""

    #: Its id at the server now; None once it has been deleted there.
    wire_id: str | None
    response_id: str = ""
    #: The item before it, `HEAD` for none; None: not known.
    previous: str | None = None
    audio_bytes: int = 0
    #: An odd byte that waits for its other half.
    carry: bytes = b""
    has_text: bool = False
    done: bool = False
    #: Where the server's audio was cut already.
    cut_ms: int | None = None

    @property
    def audio_ms(self) -> int:
        """Length of what the server believes was said: received, or what a cut left of it."""
        received_ms = self.audio_bytes * 1000 // (RATE_HZ * 2)
        return received_ms if self.cut_ms is None else min(self.cut_ms, received_ms)


class Conversation:
    """The agent's last items by id, and the responses we asked for and have not heard of.

    Bounded: the oldest are forgotten. An item that was replaced at the server is found under its
    old and its new id.
    """

    def __init__(self, *, text_only: bool = False) -> None:
        #: The model answers in words, which another service speaks.
        self.text_only = text_only
        self._items: dict[str, Item] = {}
        self._requests: dict[str, None] = {}

    def item(self, item_id: str) -> Item | None:
        return self._items.get(item_id)

    def see(self, item_id: str, response_id: str = "") -> Item:
        """The item of that id, made if it is new."""
        item = self._items.get(item_id)
        if item is None:
            item = self._items[item_id] = Item(wire_id=item_id)
            self._forget()
        if response_id:
            item.response_id = response_id
        return item

    def replace(self, item: Item, new_id: str) -> None:
        """The server knows this item by another id from now on."""
        item.wire_id = new_id
        self._items[new_id] = item
        self._forget()

    def before(self, item: Item) -> str | None:
        """Id, as the server knows it now, of what comes before; None: not known."""
        previous = item.previous
        for _ in range(len(self._items) + 1):  # bounded, should somebody send us a circle
            if previous is None or (known := self._items.get(previous)) is None:
                return previous
            if known.wire_id is not None:
                return known.wire_id
            previous = known.previous
        return None

    def unfinished(self, response_id: str) -> Iterator[tuple[str, Item]]:
        """Items of that response of which no end was told yet."""
        for item_id, item in list(self._items.items()):
            if response_id and item.response_id == response_id and not item.done:
                yield item_id, item

    def asked(self, request_id: str) -> None:
        self._requests[request_id] = None
        while len(self._requests) > _REQUESTS_KEPT:
            del self._requests[next(iter(self._requests))]

    def answered(self, request_id: str) -> bool:
        """Whether that request was still open; it is closed now."""
        return self._requests.pop(request_id, self) is None

    def oldest_request(self) -> str:
        """The request that has waited longest, or empty."""
        return next(iter(self._requests), "")

    def _forget(self) -> None:
        while len(self._items) > _ITEMS_KEPT:
            del self._items[next(iter(self._items))]
