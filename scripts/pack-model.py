#!/usr/bin/env python3
"""Makes the small file of a trained network that comes with the programs (apps/models).

  scripts/pack-model.py RUN OUT.safetensors "the command that trained it"

RUN is the folder of a training program, with model.safetensors and metrics.jsonl. Weights of 32 bits
are rounded to 16, which every program reads as well; the note in the file says how the network was
trained and what it reached on the test set. Needs Python 3 alone.
"""
import json
import pathlib
import struct
import sys


def main():
    if len(sys.argv) != 4:
        print(__doc__, file=sys.stderr)
        return 2
    run, out, command = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
    raw = (run / "model.safetensors").read_bytes()
    size, = struct.unpack("<Q", raw[:8])
    header, data = json.loads(raw[8:8 + size]), raw[8 + size:]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    test = [line for line in lines if line.get("event") == "test"][-1]

    metadata = header.pop("__metadata__")
    metadata["note"] = f"{command}: {100 * test['test_accuracy']:.2f} % on the test set"
    packed, body = {"__metadata__": metadata}, bytearray()
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        values = data[begin:end]
        if entry["dtype"] == "F32":
            count = len(values) // 4
            values = struct.pack(f"<{count}e", *struct.unpack(f"<{count}f", values))
            entry = entry | {"dtype": "F16"}
        packed[name] = entry | {"data_offsets": [len(body), len(body) + len(values)]}
        body += values
    text = json.dumps(packed, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    out.write_bytes(struct.pack("<Q", len(text)) + text + body)
    print(f"{out}: {out.stat().st_size:,} bytes; {metadata['note']}")
    return 0


sys.exit(main())
