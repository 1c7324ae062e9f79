"""Mini-CRM: takes contacts from many bots, finds the lead, and hands each contact to one operator.

The modules of this folder are the essence. Read them in this order: `models` (the data), `identity` (which lead wrote),
`distribution` (which operator gets it), `queue` (what waits, and what is moved). The folders around serve them, each in
one way: docs/inside.md.
"""

__version__ = "0.1.0"
