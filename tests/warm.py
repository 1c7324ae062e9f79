"""The app after its first request, at which FastAPI builds the routes: in 0.2 s of a core, so before services fork."""

from fastapi.testclient import TestClient

import crm.main

TestClient(crm.main.app).get("/-")
