"""`python healthy.py writer publisher`: exit code 0 when each of these services beats on this host."""

import sys

from qmt_orchestration.settings import Settings
from qmt_orchestration.stream.connection import connect
from qmt_orchestration.stream.heartbeat import read_all

settings = Settings()
beats = read_all(connect(settings, retries=0))
alive = {b["service"] for b in beats if b["host"] == settings.host and b.get("state") in ("running", "standby")}
missing = sorted(set(sys.argv[1:]) - alive)
sys.exit(f"no heartbeat of {', '.join(missing)}" if missing else 0)
