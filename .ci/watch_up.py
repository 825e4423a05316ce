"""Waits until `qmt up` of this environment has stored ticks, made a minute final, and serves its pages."""

import sys
import time
import urllib.request

from qmt_orchestration.settings import Settings
from qmt_orchestration.warehouse.client import connect

settings, ticks, final = Settings(), 0, 0
deadline = time.monotonic() + 240
while time.monotonic() < deadline and not (ticks and final):
    time.sleep(1)
    try:
        with connect(settings) as client:
            ticks = client.query("SELECT count() FROM ticks").first_row[0]
            final = client.query("SELECT count() FROM bars_1m").first_row[0]
    except Exception as error:  # it is starting
        last = error
if not (ticks and final):
    sys.exit(f"within 240 s: {ticks} ticks, {final} final bars")
PAGES = ((settings.console_port, "/metrics", b"qmt_service_up"), (settings.dagster_port, "/", b"agster"))
for port, path, wanted in PAGES:
    page = urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30).read()
    if wanted not in page:
        sys.exit(f"port {port}{path}: expected {wanted!r}, found {page[:200]!r}")
sys.stdout.write(f"{ticks} ticks, {final} final bars, pages and metrics served\n")
