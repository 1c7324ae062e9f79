"""Mini-CRM: takes contacts from many bots, finds the lead, and hands each contact to one operator.

Read in this order: `models` (the data), `identity` (which lead wrote), `distribution` (which operator gets it),
`contacts` (both put together), then `db` (how several writers share one file safely).
"""

__version__ = "0.1.0"
