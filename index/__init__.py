"""The labelled examples, kept durably, and the search for the nearest of them."""
