"""Mini-CRM: takes contacts from many bots, finds the lead, and hands each contact to one operator.

The modules of this folder are the essence. Read them in this order: `models` (the data), `identity` (which lead wrote),
`distribution` (which operator gets it), `queue` (what waits, and what is moved). The folders around serve them, each in
one way: docs/inside.md.
"""

import gc

# Objects. Most die by their reference count, so look for cycles less often: that takes a fifth of the imports.
gc.set_threshold(50_000)

__version__ = "0.1.0"
