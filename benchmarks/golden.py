"""Writes tests/golden/embeddings.json: what sentence-transformers gives for a few seed texts of all lengths.

Run in the environment of `make parity`:  .venv-train/bin/python benchmarks/golden.py
"""

import json
from pathlib import Path

import numpy as np
from reference import load_sentence_transformer

from classifier.corpus import load_corpus

COUNT = 24


def main() -> None:
    """Choose, encode, write."""
    texts = sorted((row.example.text for row in load_corpus()), key=len)
    chosen = [texts[i] for i in np.linspace(0, len(texts) - 1, COUNT).astype(int)]
    rows = load_sentence_transformer().encode(chosen, normalize_embeddings=True, show_progress_bar=False)
    content = {
        "model": "sentence-transformers/all-MiniLM-L6-v2, torch fp32, 256 tokens",
        "rows": [
            {"text": text, "embedding": [round(float(v), 6) for v in row]}
            for text, row in zip(chosen, rows, strict=True)
        ],
    }
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in content["rows"])
    path = Path(__file__).parent.parent / "tests" / "golden" / "embeddings.json"
    path.write_text(f'{{"model": {json.dumps(content["model"])}, "rows": [\n{lines}\n]}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
