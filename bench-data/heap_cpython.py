"""The shapes of `cargo bench --bench heap` on CPython.

    python3 bench-data/heap_cpython.py [TARGET...]

prints numbers as objects of JSON, one a line: seconds, bytes, shares or ratios,
named as the benchmark expects them. Only the standard library is used. Each case
runs in a process of its own, since what one leaves behind would be seen in the
next. Times are thread CPU time, as in the benchmark.
"""

import gc
import json
import os
import random
import statistics
import subprocess
import sys
import time
import weakref

cpu = time.thread_time


def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def seconds(run):
    start = cpu()
    run()
    return cpu() - start


def median(run, rounds=5):
    return statistics.median(run() for _ in range(rounds))


class Slots:
    __slots__ = ("id", "name", "value")

    def __init__(self, id, name, value):
        self.id = id
        self.name = name
        self.value = value


class Plain:
    def __init__(self, id, name, value):
        self.id = id
        self.name = name
        self.value = value


class Node:
    __slots__ = ("other", "__weakref__")

    def __init__(self):
        self.other = None


class Pauses:
    """Lengths of collections."""

    def __enter__(self):
        self.lengths = []
        gc.callbacks.append(self.heard)
        return self

    def heard(self, phase, info):
        if phase == "start":
            self.started = cpu()
        else:
            self.lengths.append(cpu() - self.started)

    def __exit__(self, *_):
        gc.callbacks.remove(self.heard)


def alloc():
    count = 500_000

    def made(of):
        def run():
            for number in range(count):
                of(number, 1, 2)

        return median(lambda: seconds(run), 7) / count

    return {"alloc_slots": made(Slots), "alloc_class": made(Plain)}


def cycles():
    count = 500_000

    def make():
        for _ in range(count):
            one, other = Node(), Node()
            one.other, other.other = other, one

    def automatic():
        gc.collect()
        return seconds(lambda: (make(), gc.collect()))

    def by_hand():
        gc.collect()
        gc.disable()
        took = seconds(lambda: (make(), gc.collect()))
        gc.enable()
        return took

    with Pauses() as pauses:
        in_all = median(automatic) / count
        longest = max(pauses.lengths)
    # The better of both is the anchor.
    return {"cycles_slots": min(in_all, median(by_hand) / count), "cycles_longest": longest}


def containers(count):
    return [{"a": [number]} for number in range(count // 2)]


def pauses():
    gc.disable()
    live = containers(1_000_000)
    gc.enable()
    gc.collect()
    took = median(lambda: seconds(lambda: gc.collect(2)))
    with Pauses() as growing:
        more = containers(1_000_000)
    del more
    return {"collect_1m": took, "growing_longest": max(growing.lengths), "live": len(live)}


def returned(survives, small):
    def case():
        places = [None] * small
        start = resident()
        for number in range(small):
            places[number] = (number,)
        peak = resident()
        for number in range(small):
            if not survives(number):
                places[number] = None
        gc.collect()
        return (peak - resident()) / (peak - start)

    return case


def returned_all():
    return {"returned_all": returned(lambda _: False, 5_000_000)()}


def returned_thousandth():
    return {"returned_thousandth": returned(lambda number: number % 1000 == 0, 5_000_000)()}


def returned_random():
    draw = random.Random(3)
    return {"returned_random": returned(lambda _: draw.randrange(100) == 0, 5_000_000)()}


def returned_buffers():
    start = resident()
    buffers = [bytearray(b"1" * (100 << 10)) for _ in range(5000)]
    peak = resident()
    for number in range(5000):
        if number % 50 != 0:
            buffers[number] = None
    return {"returned_buffers": (peak - resident()) / ((peak - start) * 0.98)}


def size(make):
    places = [None] * 1_000_000
    start = resident()
    for number in range(1_000_000):
        places[number] = make(number)
    return (resident() - start) / 1_000_000


def size_slots():
    return {"bytes_slots": size(lambda number: Slots(1, 2, 3))}


def size_class():
    return {"bytes_class": size(lambda number: Plain(1, 2, 3))}


def size_dict():
    return {"bytes_dict": size(lambda number: {"id": 1, "name": 2, "value": 3})}


def weak():
    count = 200_000
    nodes = [Node() for _ in range(count)]

    def insert():
        kept = weakref.WeakValueDictionary()

        def run():
            for key in range(count):
                kept[key] = nodes[key]

        return seconds(run) / count

    full = weakref.WeakValueDictionary(enumerate(nodes))

    def get():
        def run():
            for key in range(count):
                full.get(key)

        return seconds(run) / count

    def death():
        dying = [Node() for _ in range(count)]
        kept = weakref.WeakValueDictionary(enumerate(dying))
        took = seconds(dying.clear) / count
        assert not kept
        return took

    others = [Plain(1, 2, 3) for _ in range(count)]

    def create():
        ref = weakref.ref

        def run():
            for other in others:
                ref(other)

        return seconds(run) / count

    references = [weakref.ref(other) for other in others]

    def upgrade():
        def run():
            for reference in references:
                reference()

        return seconds(run) / count

    return {
        "weak_insert": median(insert),
        "weak_get": median(get),
        "weak_death": median(death),
        "weak_create": median(create),
        "weak_upgrade": median(upgrade),
    }


def traced():
    import tracemalloc

    def deep(depth):
        if depth > 0:
            return deep(depth - 1)
        records = []
        for number in range(100_000):
            records.append({"id": number, "name": f"record {number}", "items": [number] * 4})
        return None

    def pair(frames):
        plain = seconds(lambda: deep(12))
        tracemalloc.start(frames)
        traced = seconds(lambda: deep(12))
        tracemalloc.stop()
        return traced / plain

    return {"traced_1": median(lambda: pair(1)), "traced_10": median(lambda: pair(10))}


def requests(scoped):
    gc.disable()
    live = containers(1_000_000)
    gc.collect()
    count = 1000
    took = []
    paused = []
    begin = cpu()
    for number in range(count):
        start = cpu()
        records = []
        for at in range(100):
            record = {"id": number + at, "name": f"record-{at}"}
            record["relations"] = [
                {"kind": kind, "name": f"relation-{kind}", "of": record} for kind in range(5)
            ]
            records.append(record)
        lines = []
        for record in records:
            for relation in record["relations"]:
                lines.append(
                    f"{record['name']} {relation['name']}: {relation['kind']} {relation['of']['id']}"
                )
        "\n".join(lines)
        del record, records, lines, relation
        end = cpu()
        if scoped:
            gc.collect(2 if number % 100 == 99 else 1 if number % 10 == 9 else 0)
        now = cpu()
        paused.append(now - end)
        took.append(now - start)
    in_all = cpu() - begin
    took.sort()
    assert live
    return count / in_all, took[len(took) * 99 // 100], max(paused)


def requests_off():
    speed, p99, _ = requests(False)
    return {"requests_off": speed, "requests_off_p99": p99}


def requests_scoped():
    speed, p99, longest = requests(True)
    return {
        "requests_scoped": speed,
        "requests_scoped_p99": p99,
        "requests_scoped_longest": longest,
    }


def flat(number):
    return {"id": number, "name": "name", "value": number * 0.5}


def nested(number):
    return {"id": number, "name": "name", "items": [number, number + 1]}


def records(make):
    def once():
        return seconds(lambda: [make(number) for number in range(1_000_000)])

    def pair():
        gc.disable()
        off = once()
        gc.enable()
        on = once()
        return on / off

    return median(pair, 3)


def records_flat():
    return {"records_flat": records(flat)}


def records_nested():
    return {"records_nested": records(nested)}


TARGETS = {
    1: [alloc],
    3: [cycles],
    4: [pauses],
    7: [returned_all, returned_thousandth, returned_random, returned_buffers],
    8: [size_slots, size_class, size_dict],
    9: [weak],
    10: [traced],
    11: [requests_off, requests_scoped],
    12: [records_flat, records_nested],
}


def main():
    arguments = sys.argv[1:]
    if arguments[:1] == ["--case"]:
        print(json.dumps(globals()[arguments[1]]()), flush=True)
        return
    targets = [int(argument) for argument in arguments] or list(TARGETS)
    for target in targets:
        for case in TARGETS.get(target, []):
            subprocess.run([sys.executable, __file__, "--case", case.__name__], check=True)


if __name__ == "__main__":
    main()
