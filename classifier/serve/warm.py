"""What a server scores before it takes requests, so that no caller waits for what is loaded when first needed."""

_PLAIN = "Which trains run on Sunday, and where do I change for the coast? "
WARM_UP = (
    "warm up",
    "Dites-moi quels trains partent le dimanche matin vers la c\u00f4te, et combien co\u00fbte le billet.",  # language
    "\u0440\u0430\u0443\u0440\u0430l s\u0435nd m\u043e\u0440\u0435 w\u043erds fr\u043em h\u0435r\u0435",  # look-alikes
    "a\u0301" + "\u0301" * 40,  # runs of marks
    _PLAIN * 40,  # several windows, so that all cores encode
)
"""A text for each part that is loaded late; a test holds it to that."""
