"""The analysts' desk: what an example would change before it counts, what contradicts it, and what to look at next."""
