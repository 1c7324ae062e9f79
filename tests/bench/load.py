"""The load: wrk registers contacts of unique leads, or as a case has it, or closes what there is."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from typing import NamedTuple

from tests.bench.history import SOURCES

CONNECTIONS = 16
WRK = shutil.which("wrk") or ""

BEGIN = """
local threads = 0
function setup(thread) thread:set("number", threads); threads = threads + 1 end
function init(args) n = 0; math.randomseed(os.time() * 8 + number) end
function done(summary, latency)
  local e = summary.errors
  io.write(string.format('RESULT {"rate": %f, "p50": %f, "p99": %f, "errors": %d}\\n',
    (summary.requests - e.status) / summary.duration * 1e6, latency:percentile(50) / 1000,
    latency:percentile(99) / 1000, e.connect + e.read + e.write + e.status + e.timeout))
end
local json = {["Content-Type"] = "application/json"}
"""
REGISTER = """
local keys = {KEYS}
function request()
  n = n + 1
  local event = string.format("%d-%d-%d", math.random(0, 2^30), number, n)
  local source, lead, phone = SOURCE, LEAD, PHONE
  json["X-API-Key"] = keys[source]
  return wrk.format("POST", "/contacts/", json, string.format(
    '{"source_id":%d,"lead_external_id":"tg:%s","lead_phone":"%s","lead_name":"Lead %d",' ..
    '"message":"Where is my order?","event_id":"%s"}', source, lead, phone, n, event))
end
"""
CLOSE = """
function request()
  n = n + 1
  return wrk.format("PATCH", "/contacts/" .. (FIRST + 2 * (n - 1) + number) .. "/status", json, '{"status":"closed"}')
end
"""


class Result(NamedTuple):
    rate: float
    p50: float
    p99: float
    errors: int


def register(
    port: int,
    seconds: int,
    keys: Sequence[str] = (),
    source: str = f"n % {SOURCES} + 1",
    lead: str = "event",
    phone: str = "string.format('8 9%02d %07d', math.random(10, 29), math.random(0, 9999999))",
) -> Result:
    """keys: those of the sources, or none. source, lead, phone: of contact n, as Lua has it."""
    words = {"KEYS": ", ".join(f'"{key}"' for key in keys), "SOURCE": source, "LEAD": lead, "PHONE": phone}
    script = REGISTER
    for word, value in words.items():
        script = script.replace(word, value)
    return wrk(port, seconds, script)


def close(port: int, seconds: int, first: int) -> Result:
    """One contact after the other, from this id on; past the last one each is an error."""
    return wrk(port, seconds, CLOSE.replace("FIRST", str(first)))


def wrk(port: int, seconds: int, script: str) -> Result:
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(BEGIN + script)
        file.flush()
        output = subprocess.run(
            [WRK, "-t2", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", file.name, f"http://127.0.0.1:{port}"],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
    return Result(**json.loads(output.rpartition("RESULT ")[2]))
