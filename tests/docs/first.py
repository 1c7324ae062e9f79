"""The service with a draw that always takes the first candidate: what the documents show is what comes out then.

A reader's answers may name another operator, as the README says; a test needs to know which.
"""

import random
from typing import Any

from crm.main import create_app


class First(random.Random):
    def choices(self, population: Any, *_: Any, **__: Any) -> list[Any]:
        return [population[0]]


app = create_app(rng=First())
