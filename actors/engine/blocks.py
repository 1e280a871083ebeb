"""The KV cache as numbered blocks: who holds which, and which can be used again for an equal prefix.

Knows block ids, reference counts and digests. Knows nothing of tensors or sequences. A block is *held*
(count > 0), *idle* (count 0, contents still known by digest, evicted least recently used first) or *blank*.
What is evicted may find a place in a tier below and be fetched from it again; the next plan carries such moves.
Prefix reuse by chained block digests follows vLLM's automatic prefix caching; the digest is BLAKE2b and its
chain starts from the tenant's salt, so that nobody can build a collision or probe another tenant's cache.
"""

from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from hashlib import blake2b

from actors.engine.tier import Tier

Moves = tuple[tuple[int, int], ...]


def root(salt: str) -> bytes:
    """Where the chain of digests of a tenant starts."""
    return blake2b(salt.encode("utf-8", "surrogatepass"), digest_size=16, person=b"strata-prefix").digest()


def extend(digests: list[bytes], tokens: Sequence[int], block_tokens: int, salt: str) -> None:
    """Append to `digests` the digest of each full block of `tokens` that has none yet."""
    for index in range(len(digests), len(tokens) // block_tokens):
        piece = array("q", tokens[index * block_tokens : (index + 1) * block_tokens])
        parent = digests[-1] if digests else root(salt)
        digests.append(blake2b(piece.tobytes(), digest_size=16, key=parent).digest())


class BlockPool:
    """`size` blocks. Never hands out a held block; forgets an idle one's contents only when it must."""

    def __init__(self, size: int, tier: Tier | None = None) -> None:
        self.size = size
        self.tier = tier
        self._saves: list[tuple[int, int]] = []  # (block, place), before anything is written
        self._loads: list[tuple[int, int]] = []  # (place, block), after the saves
        self._blank = list(range(size - 1, -1, -1))
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._counts = [0] * size
        self._digest_of: dict[int, bytes] = {}
        self._block_of: dict[bytes, int] = {}

    @property
    def free(self) -> int:
        """Blocks that could be taken now."""
        return len(self._blank) + len(self._idle)

    @property
    def held(self) -> int:
        """Blocks that some sequence holds."""
        return self.size - self.free

    def match(self, digests: Iterable[bytes]) -> list[int]:
        """The blocks of the longest cached prefix; not yet held (see `hold`)."""
        found = []
        for digest in digests:
            block = self._block_of.get(digest)
            if block is None:
                break
            found.append(block)
        return found

    def idle_among(self, blocks: Iterable[int]) -> int:
        """How many of `blocks` nobody holds: holding these takes them out of `free`."""
        return sum(self._counts[block] == 0 for block in blocks)

    def hold(self, blocks: Iterable[int]) -> None:
        """Share blocks that `match` found."""
        for block in blocks:
            if self._counts[block] == 0:
                del self._idle[block]
            self._counts[block] += 1

    def take(self, count: int) -> list[int]:
        """`count` blocks for new contents; the caller has checked `free`."""
        taken = []
        for _ in range(count):
            if self._blank:
                block = self._blank.pop()
            else:
                block, _ = self._idle.popitem(last=False)
                self._evict(block)
            self._counts[block] = 1
            taken.append(block)
        return taken

    def fetch(self, digests: Sequence[bytes]) -> list[int]:
        """Held blocks that will have what lies in the tier of `digests`; the caller has checked that and `free`."""
        assert self.tier is not None
        self.tier.read(digests)
        blocks = self.take(len(digests))
        self._loads += zip(self.tier.find(digests), blocks, strict=True)
        for block, digest in zip(blocks, digests, strict=True):
            self.seal(block, digest)
        return blocks

    def moves(self) -> tuple[Moves, Moves]:
        """(block, place) pairs to save and (place, block) pairs to load by the next plan, in this order."""
        moved = tuple(self._saves), tuple(self._loads)
        self._saves, self._loads = [], []
        if self.tier is not None:
            self.tier.planned()
        return moved

    def seal(self, block: int, digest: bytes) -> None:
        """Make a full, computed block findable. The first block of a digest stays the one that is found."""
        if digest not in self._block_of and block not in self._digest_of:
            self._block_of[digest] = block
            self._digest_of[block] = digest

    def release(self, blocks: Sequence[int]) -> None:
        """Give back one hold on each. Tails become idle before heads: a head serves more prefixes."""
        for block in reversed(blocks):
            self._counts[block] -= 1
            if self._counts[block] == 0:
                if block in self._digest_of:
                    self._idle[block] = None
                else:
                    self._blank.append(block)

    def forget(self, blocks: Iterable[int]) -> None:
        """Let nobody find `blocks` again, whoever holds them: what is in them is doubtful."""
        for block in blocks:
            digest = self._digest_of.get(block)
            if digest is None:
                continue
            self._forget(block)
            if self._idle.pop(block, 0) is None:
                self._blank.append(block)
            if self.tier is not None:
                self.tier.forget(digest)

    def clear(self) -> None:
        """Forget all idle contents (after a fault that makes them doubtful)."""
        for block in self._idle:
            self._forget(block)
            self._blank.append(block)
        self._idle.clear()
        self._saves, self._loads = [], []
        if self.tier is not None:
            self.tier.clear()

    def _evict(self, block: int) -> None:
        digest = self._digest_of[block]
        self._forget(block)
        if self.tier is None or any(block == loading for _, loading in self._loads):
            return  # what it is to hold is not there yet, and lies below already
        place = self.tier.keep(digest)
        if place is not None:
            self._saves.append((block, place))

    def _forget(self, block: int) -> None:
        del self._block_of[self._digest_of.pop(block)]
