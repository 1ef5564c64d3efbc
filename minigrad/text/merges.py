"""Learning which pairs to merge: the training of byte-pair encoding, for BPE and WordPiece."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from itertools import pairwise

Pair = tuple[int, int]


def learn_merges(
    words: Mapping[tuple[int, ...], int],
    join: Callable[[Pair], int],
    room: Callable[[], bool],
    min_frequency: int = 1,
) -> list[Pair]:
    """The most frequent pair of neighbours is merged everywhere, again and again, while there is
    `room()` and one occurs min_frequency times.

    words: token sequences with their counts; pairs never reach across words.   join: gives a pair
        its (perhaps known) number.
    Of equally frequent pairs the smaller one goes first. From Sennrich et al. 2016,
    arXiv:1508.07909.
    """
    spelled, counts = [list(word) for word in words], list(words.values())
    frequency: Counter[Pair] = Counter()
    # The words in which a pair occurs, or has occurred
    places: defaultdict[Pair, set[int]] = defaultdict(set)
    for i, word in enumerate(spelled):
        for pair in pairwise(word):
            frequency[pair] += counts[i]
            places[pair].add(i)
    queue = [(-n, pair) for pair, n in frequency.items()]
    heapq.heapify(queue)
    merges: list[Pair] = []
    while queue and room():
        negative, pair = heapq.heappop(queue)
        if -negative != frequency[pair]:  # recounted since: push it with today's count
            if frequency[pair] > 0:
                heapq.heappush(queue, (-frequency[pair], pair))
            continue
        if frequency[pair] < min_frequency:
            break
        merges.append(pair)
        new, changed = join(pair), set()
        for i in places.pop(pair):
            before = spelled[i]
            after = merged(before, pair, new)
            _count(before, -counts[i], frequency)
            _count(after, counts[i], frequency)
            for p in pairwise(after):
                if new in p:
                    places[p].add(i)
                    changed.add(p)
            spelled[i] = after
        frequency.pop(pair, None)
        for p in changed:
            heapq.heappush(queue, (-frequency[p], p))
    return merges


def merged(word: list[int], pair: Pair, new: int) -> list[int]:
    """`word` with `new` in place of each occurrence of `pair`, from the left."""
    out, i, last = [], 0, len(word) - 1
    while i <= last:
        if i < last and word[i] == pair[0] and word[i + 1] == pair[1]:
            out.append(new)
            i += 2
        else:
            out.append(word[i])
            i += 1
    return out


def _count(word: list[int], by: int, frequency: Counter[Pair]) -> None:
    for pair in pairwise(word):
        frequency[pair] += by
