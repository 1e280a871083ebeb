"""Which part of a model one rank holds. Plain arithmetic on heads, widths and vocabularies."""

from dataclasses import dataclass

from cluster.errors import ModelInvalid


@dataclass(frozen=True, slots=True)
class Share:
    """The part `start:stop` of something of which there are `total` in all."""

    start: int
    stop: int
    total: int

    @property
    def count(self) -> int:
        return self.stop - self.start

    def scaled(self, factor: int) -> slice:
        """The same part where each thing is `factor` rows long."""
        return slice(self.start * factor, self.stop * factor)


def even(total: int, rank: int, size: int) -> Share:
    """A contiguous part that differs by at most one between ranks."""
    return Share(total * rank // size, total * (rank + 1) // size, total)


def padded(total: int, rank: int, size: int) -> Share:
    """Parts of equal length but for the last ones, which end early: what an all-gather can put together."""
    each = -(-total // size)
    return Share(min(each * rank, total), min(each * (rank + 1), total), total)


def heads(query: int, key: int, rank: int, size: int) -> tuple[Share, Share]:
    """Query and key-value heads of `rank`; key-value heads are repeated where there are fewer than ranks.

    Raises ModelInvalid naming the degrees that divide.
    """
    if not _divides(query, key, size):
        good = [degree for degree in range(1, query + 1) if _divides(query, key, degree)]
        raise ModelInvalid(
            "config.json",
            f"{query} query and {key} key-value heads cannot be split over tensor_parallel_size {size}",
            f"one of {', '.join(map(str, good))} divides them",
        )
    queries = Share(query // size * rank, query // size * (rank + 1), query)
    if key >= size:
        return queries, Share(key // size * rank, key // size * (rank + 1), key)
    own = rank * key // size
    return queries, Share(own, own + 1, key)


def _divides(query: int, key: int, size: int) -> bool:
    return query % size == 0 and (key % size == 0 if key >= size else size % key == 0)
