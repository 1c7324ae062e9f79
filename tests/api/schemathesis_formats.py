"""What schemathesis can't make up from the format's name alone."""

import schemathesis
from hypothesis import strategies as st

schemathesis.openapi.format("phone", st.integers(0, 9_999_999).map("+7495{:07}".format))
# JSON Schema's e-mail addresses include some that no mail can be sent to: take ordinary ones.
schemathesis.openapi.format("email", st.from_regex(r"[a-z]{1,20}@[a-z]{2,20}\.example", fullmatch=True))
