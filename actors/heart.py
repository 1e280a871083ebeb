"""A process of a gang says that it is alive."""

import threading

from actors.channel import Channel

BEAT_SECONDS = 0.2


class Heart:
    """Beats for one rank from a thread of its own, so that a long step or load is not taken for death."""

    def __init__(self, channel: Channel, rank: int) -> None:
        self._channel, self._rank = channel, rank
        self._stopped = threading.Event()
        channel.beat(rank)
        threading.Thread(target=self._run, name="heart", daemon=True).start()

    def stop(self) -> None:
        """The last beat was the last."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(BEAT_SECONDS):
            self._channel.beat(self._rank)


class Beating:
    """A rank's own end of its gang's channel, with its heart beating in it from the process's first moment on."""

    def __init__(self, channel: str, rank: int, ranks: int) -> None:
        self.channel = Channel.attach(channel, ranks)
        self.channel.introduce(rank)
        self._heart = Heart(self.channel, rank)

    def __enter__(self) -> Channel:
        return self.channel

    def __exit__(self, *_: object) -> None:
        self._heart.stop()
