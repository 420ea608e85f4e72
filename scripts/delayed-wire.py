#!/usr/bin/env python3
"""Two virtual network cards, joined by a wire on which every frame takes MILLISECONDS.

delayed-wire.py CARD CARD MILLISECONDS     until it is killed; says "ready" once the cards are there
"""
import collections
import fcntl
import os
import select
import struct
import sys
import time

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000


def card(name):
    file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(file, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TAP | IFF_NO_PI))
    return file


def main():
    cards = [card(name) for name in sys.argv[1:3]]
    delay = float(sys.argv[3]) / 1000
    print("ready", flush=True)
    under_way = collections.deque()  # when it arrives, where, and the frame; in order
    while True:
        wait = max(under_way[0][0] - time.monotonic(), 0) if under_way else None
        for file in select.select(cards, [], [], wait)[0]:
            try:
                for _ in range(64):
                    frame = os.read(file, 65536)
                    under_way.append((time.monotonic() + delay, cards[file == cards[0]], frame))
            except BlockingIOError:
                pass
        now = time.monotonic()
        while under_way and under_way[0][0] <= now:
            _, to, frame = under_way.popleft()
            try:
                os.write(to, frame)
            except OSError:
                pass  # its card is down: lost, as on any wire


if __name__ == "__main__":
    main()
