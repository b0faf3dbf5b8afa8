"""When numbered samples arrive, and the longest pause between two of them, as steady.py and cyclone.py report it."""

import json
import sys
import time


class Arrivals:
    """The samples of one topic."""

    def __init__(self):
        self.numbers, self.last, self.longest = [], None, 0.0

    def handle(self, number):
        now = time.monotonic()
        if self.last is not None:
            self.longest = max(self.longest, now - self.last)
        self.last = now
        self.numbers.append(number)

    def take_pause(self):
        """The longest pause since the last time that it was asked for, in milliseconds."""
        longest, self.longest = self.longest, 0.0
        return round(longest * 1000, 1)

    def missing(self):
        return self.numbers[-1] - self.numbers[0] + 1 - len(set(self.numbers)) if self.numbers else None


def report(reliable, best_effort):
    """A JSON line for each line of standard input that is not empty; each line starts anew. One more at its end."""
    while line := sys.stdin.readline():
        pauses = {"pause_ms": reliable.take_pause(), "best_effort_pause_ms": best_effort.take_pause()}
        if line.strip():
            print(json.dumps(pauses), flush=True)
    numbers = reliable.numbers
    end = {"received": len(numbers), "first": min(numbers, default=None), "missing": reliable.missing()}
    print(json.dumps(end | {"best_effort_missing": best_effort.missing()}), flush=True)
