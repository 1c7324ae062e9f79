"""The service with a sender that is followed within two seconds: uvicorn tests.outbox.quick:app."""

from crm.main import app as app
from crm.outbox import deliveries, lease, sender

lease.SECONDS = 2
sender.LOOK_EVERY = 0.1
deliveries.RETRIES = (0.2,) * 1000
