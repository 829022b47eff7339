"""Records that keep coming while something befalls the stream."""

import threading

from .records import Feeder
from .stream import Stream
from .topics import until

# Between two handfuls: shorter than a commit interval, so that something is always under way.
TICK = 0.04
# Seconds that two thirds of the records take to come, if the block lasts so long.
SECONDS = 15.0


class Load:
    """Feeds all records of a stream for as long as the block lasts, and what is left then at its end.

    A share `backlog` of the records is there when the block begins. The time that a block takes is unknown: partitions
    move, processors differ. So each handful is a share of what is left: about `seconds` see two thirds of it, and some
    is left however long it takes.
    """

    def __init__(self, stream: Stream, seconds: float = SECONDS, backlog: float = 0.0):
        self.stream, self.share, self.backlog = stream, TICK / seconds, backlog
        self.feeder = Feeder(stream.topics.bootstrap, stream.input)
        self.over, self.fed = threading.Event(), 0
        self.trouble: BaseException | None = None
        self.thread = threading.Thread(target=self.run, name="load", daemon=True)

    def __enter__(self) -> "Load":
        self.thread.start()
        # From now on there is work.
        until(lambda: self.fed or not self.thread.is_alive(), "the first records")
        return self

    def __exit__(self, *_) -> None:
        self.over.set()
        self.thread.join()
        if self.trouble:
            raise self.trouble

    def run(self) -> None:
        try:
            self.fed = int(self.backlog * len(self.stream.sent))
            self.feeder.send(self.stream.sent[: self.fed])
            left = self.stream.sent[self.fed :]
            while left and not self.over.is_set():
                count = max(1, round(len(left) * self.share))
                self.fed += count
                self.feeder.send(left[:count])
                left = left[count:]
                self.over.wait(TICK)
            self.feeder.send(left)
            self.feeder.close()
        except (Exception, SystemExit) as error:
            self.trouble = error

    def busy(self) -> bool:
        """Whether records are under way, the last one not among them."""
        return self.stream.committed() < self.fed < len(self.stream.sent) and self.thread.is_alive()
