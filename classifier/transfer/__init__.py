"""Examples in files: what a row of them holds, and how they come in and go out."""
