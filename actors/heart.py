"""A process of a gang says that it is alive."""

import threading

from actors.channel import Channel

BEAT_SECONDS = 0.2


class Heart:
    """Beats for one rank from a thread of its own, so that a long step is not taken for death."""

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
