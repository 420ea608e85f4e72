#!/usr/bin/env python3
"""Writes the seeds of the fuzz targets: make_corpus.py [DIR] (default: corpus beside this file).

Small valid files in every form that a reader takes, and headers that promise what no file has. What
a fuzzer finds later is added by hand, under the name of the finding.
"""
import json
import pathlib
import struct
import sys
import zlib

ROOT = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "corpus")


def put(target, name, data):
    path = ROOT / target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


# ---- IDX, plain and packed ----

def idx(kind, lengths, data):
    return bytes([0, 0, kind, len(lengths)]) + b"".join(struct.pack(">I", n) for n in lengths) + data


def gzip(data, level=9, flags=0, extra=b""):
    c = zlib.compressobj(level, zlib.DEFLATED, -15)
    body = c.compress(data) + c.flush()
    return (b"\x1f\x8b\x08" + bytes([flags]) + bytes(6) + extra + body
            + struct.pack("<II", zlib.crc32(data), len(data)))


IDX = {
    "u8": idx(8, [2, 3, 3], bytes(range(18))),
    "i8": idx(9, [4], b"\x00\x7f\x80\xff"),
    "i16": idx(11, [2], struct.pack(">hh", -2, 300)),
    "i32": idx(12, [1, 2], struct.pack(">ii", -2, 70000)),
    "f32": idx(13, [2], struct.pack(">ff", 1.5, float("nan"))),
    "f64": idx(14, [1], struct.pack(">d", -2.5)),
    "empty": idx(8, [0, 28, 28], b""),
}
for name, data in IDX.items():
    put("idx", name, data)
    put("gzip", name, gzip(data))
put("idx", "promise-2e60", idx(8, [1 << 30, 1 << 30], b"x"))
put("idx", "promise-4g", idx(8, [1 << 16, 1 << 16], b"x"))
put("idx", "promise-overflow", idx(14, [0xFFFFFFFF] * 8, b"x"))
put("gzip", "promise-4g", gzip(idx(8, [1 << 16, 1 << 16], b"x")))
put("gzip", "stored", gzip(IDX["u8"], 0))
put("gzip", "members", gzip(IDX["u8"][:10]) + gzip(IDX["u8"][10:]))
put("gzip", "name-comment", gzip(IDX["i8"], 9, 24, b"name\0comment\0"))
put("gzip", "extra-hcrc", gzip(IDX["i8"], 9, 4, b"\x02\x00ab"))
put("gzip", "repetitive", gzip(idx(8, [200, 200], bytes(40000))))

# ---- NPY and NPZ ----

def npy(descr, shape, data, fortran=False, version=1, header=None):
    text = header or f"{{'descr': {descr!r}, 'fortran_order': {fortran}, 'shape': {shape}, }}"
    raw = text.encode()
    pad = -(10 + len(raw) + 1 + (2 if version > 1 else 0)) % 64
    raw += b" " * pad + b"\n"
    return (b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(raw))
            + raw + data)


NPY = {
    "f4": npy("<f4", "(2, 3)", struct.pack("<6f", *range(6))),
    "f8-big": npy(">f8", "(2,)", struct.pack(">2d", 1, -2)),
    "f2": npy("<f2", "(3,)", struct.pack("<3e", 1, -2, 0.5)),
    "i8-v2": npy("<i8", "()", struct.pack("<q", -7), version=2),
    "i4-fortran": npy("<i4", "(2, 3)", struct.pack("<6i", *range(6)), fortran=True),
    "i2-v3": npy("<i2", "(1, 2)", struct.pack("<2h", 1, -1), version=3),
    "u8": npy("<u8", "(2,)", struct.pack("<2Q", 1, 1 << 62)),
    "u2": npy("|u2", "(1,)", struct.pack("<H", 65535)),
    "bool": npy("|b1", "(4,)", bytes([0, 1, 1, 0])),
    "none": npy("<f4", "(0, 3)", b""),
    "python2": npy("", "", struct.pack("<2d", 1, 2),
                   header="{\"shape\":(2L,),'fortran_order':False,'descr':'<f8'}"),
}
for name, data in NPY.items():
    put("npy", name, data)
put("npy", "promise-2e60", npy("<f4", f"({1 << 30}, {1 << 30})", b"x"))
put("npy", "promise-overflow", npy("<f8", f"({(1 << 63) - 1}, 9, 9)", b"x"))
put("npy", "promise-header", b"\x93NUMPY\x02\x00\xff\xff\xff\xff{'descr': '<f4'")


def npz(members, method=8):
    out, directory = b"", b""
    for name, data in members.items():
        c = zlib.compressobj(9, zlib.DEFLATED, -15)
        body = c.compress(data) + c.flush() if method == 8 else data
        common = struct.pack("<HHHHHIIIHH", 20, 0, method, 0, 0x21, zlib.crc32(data), len(body),
                             len(data), len(name), 0)
        directory += (struct.pack("<IH", 0x02014B50, 20) + common
                      + struct.pack("<HHHII", 0, 0, 0, 0, len(out)) + name.encode())
        out += struct.pack("<I", 0x04034B50) + common + name.encode() + body
    return out + directory + struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, len(members), len(members),
                                         len(directory), len(out), 0)


pair = {"a.npy": NPY["f4"], "b.npy": NPY["i4-fortran"]}
put("npz", "deflated", npz(pair))
put("npz", "stored", npz(pair, 0))
put("npz", "none", npz({}))
put("npz", "comment", npz({"x.npy": NPY["bool"]})[:-2] + b"\x03\x00abc")
bad = bytearray(npz({"x.npy": NPY["f4"]}))
at = bad.rindex(b"PK\x01\x02")
bad[at + 24:at + 28] = struct.pack("<I", 0xFFFFFFFE)  # 4 GiB from a few bytes
put("npz", "promise-4g", bytes(bad))
put("npz", "zeros", npz({"z.npy": npy("<f4", "(5000,)", bytes(20000))}))

# ---- safetensors ----

def safetensors(header, data, length=None):
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


widths = {"F32": 4, "F64": 8, "I64": 8, "BOOL": 1, "F16": 2, "BF16": 2, "I32": 4, "I16": 2, "I8": 1,
          "U32": 4, "U16": 2, "U8": 1}
header, at = {"__metadata__": {"format": "pt", "note": "ü \" \\"}}, 0
for dtype, width in widths.items():
    header[f"t.{dtype}"] = entry(dtype, [1, 2], at, at + 2 * width)
    at += 2 * width
put("safetensors", "types", safetensors(header, bytes(at)))
put("safetensors", "one", safetensors({"w": entry("F32", [2, 2], 0, 16)},
                                      struct.pack("<4f", 1, 2, 3, 4)))
put("safetensors", "scalar-none", safetensors(
    {"s": entry("F64", [], 0, 8), "n": entry("F32", [0, 3], 8, 8)}, struct.pack("<d", 1)))
put("safetensors", "empty", safetensors("{}", b""))
put("safetensors", "promise-header", safetensors("{}", b"", (1 << 60)))
put("safetensors", "promise-wrap", safetensors("{}", b"", (1 << 64) - 8))
put("safetensors", "promise-shape", safetensors({"w": entry("F32", [1 << 30, 1 << 30], 0, 16)},
                                                bytes(16)))
put("safetensors", "promise-offsets", safetensors({"w": entry("U8", [1 << 62], 0, 1 << 62)}, b"x"))
put("safetensors", "deep", safetensors("{\"w\":" + "[" * 500 + "]" * 500 + "}", b""))
put("safetensors", "twice", safetensors('{"w":{},"w":{}}', b""))

# ---- CSV ----

put("csv", "header", b"x,y,\"a \"\"b\"\"\"\n1,2.5,-3e10\n nan ,inf,+4\n")
put("csv", "plain", b"1;2\r\n3;4\r\n\r\n")
put("csv", "bom", b"\xef\xbb\xbf1,2\n3,4")
put("csv", "quoted", b"\"1\",\"2\"\n\"3\",\"4\"\n")
put("csv", "range", b"1e400,1\n")
put("csv", "open", b"1,\"2\n3,4\n")
put("csv", "columns", b"," * 3000)

# ---- text: tables of sentences, lines, vocabularies ----

put("text", "table", b"\x00pos\tA fine film, isn't it?\nneg\tnot so  good (at all)\n\npos\t\xc3\xa9t\xc3\xa9\n")
put("text", "latin1", b"\x00a\tcaf\xe9 \x92s\r\nb\tna\xefve\rc\tdon't\tnow\n")
put("text", "bom", b"\x00\xef\xbb\xbfa\tx\nb\ty\n")
put("text", "utf8-bad", b"\x01\xed\xa0\x80\n\xf4\x90\x80\x80\n\xc0\x80 \xff")
put("text", "utf8", b"\x01\xe2\x80\x99s \xf0\x9f\x98\x80 \xd0\x90\xce\xa9\n")
put("text", "nul", b"\x01a\x00b\n")
put("text", "vocabulary", b"\x02<pad>\n<unk>\nthe\nfilm\n")
put("text", "lines", b"\x01" + b"\n" * 2000)

# ---- word vectors; the first byte picks the format ----

binary = b"2 3\nthe " + struct.pack("<3f", 1, 2, 3) + b"\nfilm " + struct.pack("<3f", 4, 5, 6)
put("vectors", "glove", b"\x03the 0.1 -2 3e-3\nof course 1 2 3\nfilm +4 5 6\n")
put("vectors", "text", b"\x012 3\nthe 1 2 3\nfilm 4 5 6\n")
put("vectors", "binary", b"\x02" + binary)
put("vectors", "detect-binary", b"\x00" + binary + b"\n\n")
put("vectors", "detect-text", b"\x002 2\nthe 1 2\r\nfilm 4\t5\r\n")
put("vectors", "detect-glove", b"\x00the 1\nfilm 2\n")
put("vectors", "promise-count", b"\x02%d 300\nthe " % (1 << 60) + bytes(50))
put("vectors", "promise-dim", b"\x001 %d\nthe " % (1 << 60) + bytes(50))
put("vectors", "promise-both", b"\x00%d %d\nthe 1" % (1 << 40, 10000))
put("vectors", "blank", b"\x03\n \n")
put("vectors", "range", b"\x00the 1e-400 1e400\n")

# ---- images ----

def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, colour, rows, interlace=0, between=b"", size=None):
    w, h = size or (width, height)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, depth, colour, 0, 0,
                                                             interlace))
            + between + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b""))


def lines(height, data, filters=(0, 1, 2, 3, 4)):
    n = len(data) // height
    return b"".join(bytes([filters[y % len(filters)]]) + data[y * n:(y + 1) * n]
                    for y in range(height))


put("image", "grey.png", png(4, 5, 8, 0, lines(5, bytes(range(20)))))
put("image", "colour.png", png(2, 5, 8, 2, lines(5, bytes(range(30)))))
put("image", "alpha.png", png(2, 2, 8, 6, lines(2, bytes(range(16)))))
put("image", "grey-alpha.png", png(2, 1, 8, 4, lines(1, bytes(range(4)))))
put("image", "bits1.png", png(10, 2, 1, 0, lines(2, b"\xaa\x80\x55\x40")))
put("image", "bits4.png", png(3, 2, 4, 0, lines(2, b"\x12\x30\x45\x60")))
put("image", "bits16.png", png(2, 1, 16, 2, lines(1, bytes(range(12)))))
put("image", "palette.png", png(3, 1, 2, 3, lines(1, b"\x18"), between=chunk(
    b"PLTE", bytes(range(9))) + chunk(b"tRNS", b"\x00\x80\xff")))
put("image", "transparent.png", png(2, 1, 8, 2, lines(1, bytes(6)), between=chunk(b"tRNS", bytes(6))))
adam7 = b"".join(bytes(1 + n) for n in (1, 1, 2, 2, 2, 4, 4))  # the rows of the seven passes
put("image", "interlaced.png", png(4, 4, 8, 0, adam7, interlace=1))
put("image", "promise.png", png(1, 1, 8, 6, b"\0\0\0\0\0", size=(8192, 8192)))
put("image", "promise-2e62.png", png(1, 1, 8, 0, b"\0\0", size=(0x7FFFFFFF, 0x7FFFFFFF)))


def segment(marker, data):
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def huffman(kind, symbol):  # one code of one bit
    return segment(0xC4, bytes([kind, 1]) + bytes(15) + bytes([symbol]))


def jpeg(frame, width, height, components, scans, extra=b""):
    out = b"\xff\xd8" + segment(0xDB, b"\0" + b"\x08" * 64) + extra
    out += segment(frame, struct.pack(">BHHB", 8, height, width, len(components))
                   + b"".join(bytes([i + 1, hv, 0]) for i, hv in enumerate(components)))
    return out + huffman(0x00, 6) + huffman(0x10, 0) + b"".join(scans) + b"\xff\xd9"


def scan(components, first, last, data):
    return segment(0xDA, bytes([len(components)]) + b"".join(bytes([c, 0]) for c in components)
                   + bytes([first, last, 0])) + data


one = "0101000" + "0"  # a DC difference of 40, no AC


def pack(text):
    text += "1" * (-len(text) % 8)
    return bytes(int(text[i:i + 8], 2) for i in range(0, len(text), 8)).replace(b"\xff", b"\xff\0")


put("image", "grey.jpg", jpeg(0xC0, 8, 8, [0x11], [scan([1], 0, 63, pack(one))]))
put("image", "colour.jpg", jpeg(0xC0, 8, 8, [0x11] * 3, [scan([1, 2, 3], 0, 63, pack(one * 3))]))
put("image", "420.jpg", jpeg(0xC0, 16, 16, [0x22, 0x11, 0x11],
                             [scan([1, 2, 3], 0, 63, pack(one * 6))]))
put("image", "progressive.jpg", jpeg(0xC2, 8, 8, [0x11], [scan([1], 0, 0, pack("0101000")),
                                                          scan([1], 1, 63, pack("0"))]))
put("image", "restart.jpg", jpeg(0xC0, 16, 8, [0x11], [scan([1], 0, 63, pack(one) + b"\xff\xd0"
                                                            + pack(one))],
                                 extra=segment(0xDD, b"\0\x01")))
put("image", "cmyk.jpg", jpeg(0xC0, 8, 8, [0x11] * 4, [scan([1, 2, 3, 4], 0, 63, pack(one * 4))],
                              extra=segment(0xEE, b"Adobe\0\x64\0\0\0\0\x02")))
put("image", "promise.jpg", jpeg(0xC0, 8000, 8000, [0x11], [scan([1], 0, 63, pack(one))]))
