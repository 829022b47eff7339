"""The rated sentences: where they come from, how they are labelled, and which of them are held out.

Standard library only, so that the check of the held-out part needs no training environment.
The texts belong to others and are never written into the repository: they are fetched anew.
"""

import hashlib
import html
import io
import re
import tarfile
from pathlib import Path
from typing import NamedTuple

from packages import fetch

REQUIREMENT = "vaderSentiment==3.3.2"
SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
ARCHIVE = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
SOURCES = {
    "movie": "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt",
    "amazon": "hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt",
    "tweets": "hutto_ICWSM_2014/tweets_GroundTruth.txt",
}
# Ratings run from -4 to 4. Below this size the twenty raters did not agree on a side.
RATING_MIN = 0.5
# One text in five is held out, one in ten of the rest is for choosing hyper-parameters.
HELD_OUT_OF = 5
VALIDATION_OF = 10


class Sentence(NamedTuple):
    text: str
    label: int  # 0 negative, 1 positive
    rating: float
    source: str
    part: str  # "train", "validation" or "held-out"


def load(folder: Path) -> list[Sentence]:
    """All labelled sentences in the order of their files, each text once."""
    first: dict[str, Sentence] = {}
    disputed: set[str] = set()
    for source, rating, text in read(fetch(REQUIREMENT, SHA256, folder, source=True)):
        if abs(rating) < RATING_MIN:
            continue
        key = same_text(text)
        sentence = Sentence(text, int(rating > 0), rating, source, part(key))
        if first.setdefault(key, sentence).label != sentence.label:
            disputed.add(key)
    return [sentence for key, sentence in first.items() if key not in disputed]


def read(sdist: Path):
    """Yields (source, mean rating, text) from the archive inside the source package."""
    with tarfile.open(sdist) as outer:
        inner = outer.extractfile(ARCHIVE).read()
    with tarfile.open(fileobj=io.BytesIO(inner)) as archive:
        for source, name in SOURCES.items():
            for line in archive.extractfile(name).read().decode("utf-8").splitlines():
                _, rating, text = line.split("\t", 2)
                # Tweets and some snippets carry HTML entities that no user would type.
                yield source, float(rating), html.unescape(text).strip()


def same_text(text: str) -> str:
    """Copies that differ in case, spacing or punctuation only have the same key, so they fall into one part."""
    words = re.findall(r"\w+", text.casefold())
    return " ".join(words) or text


def part(key: str) -> str:
    """The split is a function of the text alone: no order, no seed, no file can change it."""
    digest = hashlib.sha256(key.encode("utf-8")).hexdigest()
    if int(digest[:8], 16) % HELD_OUT_OF == 0:
        return "held-out"
    if int(digest[8:16], 16) % VALIDATION_OF == 0:
        return "validation"
    return "train"
