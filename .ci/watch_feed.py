"""Waits until the subscriber and the gateway of this environment work: ticks on the stream, an answer to a request."""

import importlib.util
import sys
import time

from qmt_orchestration.settings import Settings
from qmt_orchestration.stream import keys, rpc
from qmt_orchestration.stream.connection import connect
from qmt_orchestration.stream.heartbeat import read_all

unwanted = [name for name in ("dagster", "chdb", "clickhouse_connect", "starlette") if importlib.util.find_spec(name)]
if unwanted:
    sys.exit(f"expected an environment without {', '.join(unwanted)}")
client = connect(Settings())
deadline = time.monotonic() + 90
while time.monotonic() < deadline:
    beats = {beat["service"]: beat for beat in read_all(client)}
    entries = client.xlen(keys.ticks(0))
    if entries > 20 and {"subscriber", "gateway", "agent"} <= set(beats):
        break
    time.sleep(0.5)
else:
    sys.exit(f"no ticks within 90 s; heartbeats: {beats}")
table = rpc.call(client, "instruments", {}, timeout_seconds=30)
sys.stdout.write(f"{entries} batches of ticks, {beats['subscriber']['received']} ticks; {table.num_rows} instruments\n")
sys.exit(0 if table.num_rows >= 50 else f"expected 50 instruments, found {table.num_rows}")
