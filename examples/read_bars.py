"""Minute bars with redis-py alone: no library of this project. ``python read_bars.py redis://host:6379/0 my_client``.

One consumer group per program (broadcast). Read what an earlier run left unacknowledged first (id 0), then what is
new (``>``).
"""

import os
import sys

import redis

STREAM = "minute_bar_stream"


def main(url: str, client_id: str) -> None:
    password = os.environ.get("REDIS_PASSWORD")  # of the embedded Redis: the text in data/run/redis.password
    server = redis.Redis.from_url(url, password=password, decode_responses=True, socket_timeout=10)
    group = f"minute_bar_consumers:{client_id}"
    try:
        server.xgroup_create(STREAM, group, id="0", mkstream=True)  # "$" instead of "0": only what comes from now on
    except redis.ResponseError as error:
        if "BUSYGROUP" not in str(error):
            raise
    position = "0"
    while True:
        reply = server.xreadgroup(group, client_id, {STREAM: position}, count=500, block=2000)
        streams = list(reply.items()) if isinstance(reply, dict) else reply or []
        entries = [
            entry for _, found in streams for entry in (found[0] if found and isinstance(found[0], list) else found)
        ]
        if not entries:
            position = ">"
            continue
        for _, bar in entries:
            if bar:  # empty: trimmed before it was acknowledged
                print(bar["symbol"], bar["frame"], bar["close"], bar["vol"], "revision", bar["revision"], flush=True)
        server.xack(STREAM, group, *[entry_id for entry_id, _ in entries])
        position = ">" if position == ">" else entries[-1][0]


if __name__ == "__main__":
    main(*(sys.argv[1:] or ["redis://127.0.0.1:16379/0", "plain_python"]))
