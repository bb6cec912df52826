"""Writes passages.jsonl: `python make.py TEXT`. TEXT is a novel, one paragraph a line; the committed file is of Anne
Bronte's first, of 1847, which is in the public domain.

A document is the end of a paragraph up to its last word, and four words in any order: that one, and three that end
other paragraphs and are about as long. Who guesses finds one in four.
"""

import json
import random
import re
import sys
from pathlib import Path

COUNT, WORDS = 120, (25, 45)


def main(text: str) -> None:
    rng = random.Random(0)
    ends = [
        match.groups() for line in text.splitlines() if (match := re.fullmatch(r"(.+) (\w{4,})[.!?]", line.strip()))
    ]
    words = sorted({last.lower() for _, last in ends})
    found = []
    for passage, last in ends:
        context = " ".join(passage.split()[-WORDS[1] :])
        alike = [word for word in words if word != last.lower() and abs(len(word) - len(last)) <= 1]
        if len(context.split()) < WORDS[0] or last != last.lower() or len(alike) < 3:
            continue
        choices = [*rng.sample(alike, 3), last]
        rng.shuffle(choices)
        found.append({"passage": context, "choices": choices, "answer": choices.index(last)})
    lines = (json.dumps(document, ensure_ascii=False) for document in rng.sample(found, COUNT))
    (Path(__file__).parent / "passages.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]).read_text(encoding="utf-8"))
