"""The groups of HDF5: which names they have, and where those lead."""

from __future__ import annotations

from collections.abc import Iterator

from asyncfit.errors import BadFile

from .hdf5_dense import dense
from .hdf5_image import NOWHERE, Image

__all__ = ["Links"]

_LINK_INFO, _LINK, _TABLE = 0x02, 0x06, 0x11
_SOFT = 2  # what a symbol says that is no hard link
_LEAF, _ENTRY = 8, 40
Link = tuple[str, int | None]


class Links:
    """The links in one file."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._left = 4 * len(image.data)  # several names may share one place, but not without end
        self._known: dict[int, dict[str, int | None] | None] = {}

    def of(self, address: int) -> dict[str, int | None] | None:
        """Names and addresses in the group whose header is at `address`; None if that is no group.

        A link that is no hard one, and so may lead out of the file, has None for its address.
        """
        if address not in self._known:
            self._known[address] = self._of(address)
        return self._known[address]

    def _of(self, address: int) -> dict[str, int | None] | None:
        found: dict[str, int | None] = {}
        group = False
        for message in self._image.messages(address):
            if message.kind in (_LINK_INFO, _LINK, _TABLE):
                group = True
                if message.shared:
                    raise BadFile("is damaged: a group is not where it should be")
                for name, target in self._in(message.kind, message.start, message.end):
                    if name in found:
                        raise BadFile(f"is damaged: it has two things named {name[:200]!r} in one group")
                    found[name] = target
        return found if group else None

    def _in(self, kind: int, start: int, end: int) -> Iterator[Link]:
        image = self._image
        if kind == _LINK:
            yield self._link(start, end)
        elif kind == _TABLE:
            yield from self._symbols(image.number(start, 8), image.number(start + 8, 8))
        else:
            at = start + 2 + (8 if image.number(start + 1, 1) & 1 else 0)
            heap, names = image.number(at, 8), image.number(at + 8, 8)
            if heap != NOWHERE:
                yield from (self._link(*place) for place in dense(image, heap, names))

    def _link(self, at: int, end: int) -> Link:
        """What a link message in a header or heap says."""
        image = self._image
        flags = image.number(at + 1, 1)
        if image.number(at, 1) != 1 or flags & ~0x1F:
            raise BadFile("is damaged: a group has a link of an unknown kind")
        at += 2
        hard = True
        if flags & 8:
            hard = image.number(at, 1) == 0
            at += 1
        at += (8 if flags & 4 else 0) + (1 if flags & 16 else 0)
        width = 1 << (flags & 3)
        length = image.number(at, width)
        at += width
        if at + length + (8 if hard else 0) > end:
            raise BadFile("is damaged: a name is longer than its place")
        return self._name(image.piece(at, length)), image.number(at + length, 8) if hard else None

    def _symbols(self, tree: int, heap: int) -> Iterator[Link]:
        """The older way: a tree, whose leaves have tables of symbols with names in a heap."""
        image = self._image
        if image.piece(heap, 4) != b"HEAP":
            raise BadFile("is damaged: the names in a group are not where they should be")
        size, names = image.number(heap + 8, 8), image.number(heap + 24, 8)
        image.piece(names, size)
        for table in self._leaves(tree):
            count = image.number(table + 6, 2)
            if image.piece(table, 4) != b"SNOD":
                raise BadFile("is damaged: a part of a group is not where it should be")
            image.spend(_LEAF + count * _ENTRY)
            for at in range(table + _LEAF, table + _LEAF + count * _ENTRY, _ENTRY):
                offset, target = image.number(at, 8), image.number(at + 8, 8)
                if offset >= size:
                    raise BadFile("is damaged: a name in a group is not where it should be")
                stop = image.data.find(b"\0", names + offset, names + size)
                if stop < 0:
                    raise BadFile("is damaged: a name in a group has no end")
                soft = image.number(at + 16, 4) == _SOFT or target == NOWHERE
                yield self._name(image.piece(names + offset, stop - names - offset)), None if soft else target

    def _leaves(self, root: int) -> Iterator[int]:
        image = self._image
        nodes = [(root, -1)]
        while nodes:
            node, depth = nodes.pop()
            level, count = image.number(node + 5, 1), image.number(node + 6, 2)
            if image.piece(node, 5) != b"TREE\0" or depth not in (-1, level):
                raise BadFile("is damaged: a part of a group is not where it should be")
            image.spend(24 + 16 * count)
            children = [image.number(node + 32 + 16 * number, 8) for number in range(count)]
            if level:
                nodes += [(child, level - 1) for child in reversed(children)]
            else:
                yield from children

    def _name(self, raw: bytes) -> str:
        self._left -= len(raw)
        if self._left < 0:
            raise BadFile("is damaged: its names overlap")
        return raw.decode("utf-8", "surrogateescape")
