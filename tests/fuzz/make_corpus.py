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

# ---- sets of images ----

def record(label, coarse=b""):
    return coarse + bytes([label]) + bytes((i * 7 + label) % 256 for i in range(3072))


put("cifar", "ten", b"\0" + gzip(record(0) + record(9)))
put("cifar", "hundred", b"\1" + gzip(record(3, b"\x13")))
put("cifar", "plain", b"\0" + bytes(3073))
put("cifar", "label", b"\0" + gzip(record(10)))
put("cifar", "half", b"\0" + gzip(record(1)[:3000]))
put("cifar", "none", b"\1")
put("cifar", "promise-trailer", b"\0" + gzip(record(1))[:-4] + b"\xff\xff\xff\xff")


def norb(magic, lengths, data, order="<"):
    lengths_in_file = lengths + [1] * (3 - len(lengths))
    return struct.pack(f"{order}II{len(lengths_in_file)}i", magic, len(lengths), *lengths_in_file) + data


def parts(*files):
    return b"".join(struct.pack("<H", len(f)) + f for f in files)


pictures = idx(8, [2, 3, 3], bytes(range(18)))
put("idximages", "grey", parts(pictures, idx(8, [2], b"\1\2")))
put("idximages", "colours", parts(idx(8, [1, 3, 2, 2], bytes(12)), idx(8, [1], b"\0")))
put("idximages", "packed", parts(gzip(pictures), gzip(idx(8, [2], b"\3\4"))))
put("idximages", "counts", parts(pictures, idx(8, [3], b"\1\2\3")))
put("idximages", "class", parts(pictures, idx(8, [2], b"\1\x0a")))
put("idximages", "floats", parts(idx(13, [1, 1, 1], struct.pack(">f", 1)), idx(8, [1], b"\0")))
put("idximages", "ranks", parts(idx(8, [2, 9], bytes(18)), idx(8, [2, 1], b"\1\2")))
put("idximages", "promise-images", parts(idx(8, [1 << 30, 28, 28], b"x"), idx(8, [1 << 30], b"x")))

put("textset", "two", b"\0" + parts(b"a dull one\nno\n", b"a fine one\n"))
put("textset", "two-empty", b"\0" + parts(b"a dull one\n", b" \n"))
put("textset", "two-packed", b"\0" + parts(gzip(b"a dull one\n"), gzip(b"a fine one\n")))
put("textset", "trec", b"\1" + parts(b"NUM:dist How far is it ?\nLOC:city Where ?\n", b"HUM:ind Who \xe9 ?\n"))
put("textset", "trec-kind", b"\1" + parts(b"NUM How far is it ?\n", b"HUM:ind Who ?\n"))
put("textset", "trec-class", b"\1" + parts(b"DUCK:dist How far is it ?\n", b"HUM:ind Who ?\n"))
put("textset", "sst2", b"\2" + parts(b"1 good\n0 bad\n", b"1 fine\n", b"0 dull\n"))
put("textset", "sst2-label", b"\2" + parts(b"1 good\n2 bad\n", b"1 fine\n", b"0 dull\n"))
put("textset", "tsv", b"\3" + parts(b"a\tone\nb\ttwo\n", b"b\tthree\n"))
put("textset", "tsv-class", b"\3" + parts(b"a\tone\nb\ttwo\n", b"c\tthree\n"))
many = b"".join(b"%d\tx\n" % i for i in range(30))
put("textset", "tsv-many-classes", b"\3" + parts(many, b"c\tthree\n"))

dat = norb(0x1E3D4C55, [2, 2, 2, 3], bytes(range(24)))
cat = norb(0x1E3D4C54, [2], struct.pack("<2i", 0, 4))
info = norb(0x1E3D4C54, [2, 4], struct.pack("<8i", 0, 8, 34, 5, 9, 0, 0, 0))
for cameras in range(3):
    put("norb", f"set{cameras}", bytes([cameras]) + parts(dat, cat, info))
put("norb", "packed", b"\0" + parts(gzip(dat), gzip(cat), gzip(info)))
put("norb", "counts", b"\0" + parts(dat, norb(0x1E3D4C54, [3], bytes(12)), info))
put("norb", "category", b"\0" + parts(dat, norb(0x1E3D4C54, [2], struct.pack("<2i", 0, 5)), info))
put("norb", "f32-big", b"\3" + norb(0x1E3D4C51, [2, 1], struct.pack(">2f", 1, -2), ">"))
put("norb", "f64", b"\3" + norb(0x1E3D4C53, [], struct.pack("<d", 1)))
put("norb", "i16", b"\3" + norb(0x1E3D4C56, [3, 1, 1, 1, 1], struct.pack("<3h", 1, 2, -3)))
put("norb", "none", b"\3" + norb(0x1E3D4C55, [0, 7], b""))
put("norb", "negative", b"\3" + norb(0x1E3D4C55, [-1, -1], b"x"))
put("norb", "promise-2e62", b"\3" + norb(0x1E3D4C53, [0x7FFFFFFF, 0x7FFFFFFF], b"x"))
put("norb", "promise-4g", b"\3" + norb(0x1E3D4C55, [65536, 65536], b"x"))
put("norb", "promise-rank", b"\3" + struct.pack("<II", 0x1E3D4C55, 0x7FFFFFFF))
put("norb", "swapped-sizes", b"\3" + struct.pack(">I", 0x1E3D4C55) + struct.pack("<4I", 1, 1, 1, 1))

four = npy("<i8", "(4,)", struct.pack("<4q", 0, 1, 0, 1))
images = {"images.npy": npy("|u1", "(4, 2, 2)", bytes(range(16))), "labels.npy": four}
split = {"x_train.npy": npy("<f4", "(2, 2, 2, 3)", struct.pack("<24f", *[i / 24 for i in range(24)])),
         "y_train.npy": npy("<i4", "(2, 1)", struct.pack("<2i", 0, 2)),
         "x_test.npy": npy("<f4", "(1, 2, 2, 3)", bytes(48)), "y_test.npy": npy("|u1", "(1,)", b"\1")}
for name, arrays in {"images": images, "split": split}.items():
    put("npzimages", name, npz(arrays))
    put("npzimages", name + "-stored", npz(arrays, 0))
put("npzimages", "counts", npz({**images, "labels.npy": npy("<i8", "(3,)", bytes(24))}))
put("npzimages", "label", npz({**images, "labels.npy": npy("<i8", "(4,)", struct.pack("<4q", 0, 1, -1, 1 << 62))}))
put("npzimages", "objects", npz({**images, "labels.npy": npy("|O", "(4,)", b"\x80\x04N.")}))
put("npzimages", "path", npz({"../../images.npy": images["images.npy"], "/labels.npy": four}))
put("npzimages", "escape", npz({"\x1b[2Jimages.npy": images["images.npy"], "labels.npy": four}))

put("csvimages", "plain", b"0,1,2,3,4\n1,5,6,7,255\n0,0,0,0,0\n1,0,0,0,0\n")
put("csvimages", "header", b"a,b,c,d,label\n1,2,3,4,0\n5,6,7,8,1\n1,1,1,1,0\n1,1,1,1,1\n")
put("csvimages", "one-class", b"0,1,2,3,4\n0,5,6,7,8\n")
put("csvimages", "range", b"0,1,2,3,256\n1,1,2,3,-1\n")
put("csvimages", "columns", b"0,1,2,3\n1,1,2,3\n")
put("csvimages", "promise-classes", b"1e300,1,2,3,4\n65536,1,2,3,4\n")

small = png(2, 2, 8, 0, lines(2, b"\x00\x40\x80\xff"))
wide = png(3, 2, 8, 2, lines(2, bytes(range(18))))
put("folder", "classes", parts(b"a/1.png", small, b"a/2.PNG", small, b"b/deep/er/3.png", small,
                               b"b/4.png", small, b"b/.hidden", b"x", b"readme.txt", b"x"))
put("folder", "parts", parts(b"train/a/1.png", small, b"train/b/1.png", small, b"test/b/1.png", small))
put("folder", "sizes", parts(b"a/1.png", small, b"a/2.png", wide, b"b/1.png", wide, b"b/2.png", small))
put("folder", "sizes-odd", parts(b"a/1.png", small, b"a/2.png", wide, b"b/1.png", wide, b"b/2.png", small,
                                 b"b/5.png", wide))
put("folder", "broken", parts(b"a/1.png", small, b"a/2.png", small[:30], b"b/3.png", b"", b"b/4.png", small,
                              b"b/5.jpg", small, b"b/6.png", small))
put("folder", "strange-class", parts(b"a/1.png", small, b"train/1.png", small, b"test/b/1.png", small))
put("folder", "escape", parts(b"\x1b]0;x\x07/1.png", small, b"b/1.png", small))
put("folder", "latin1", parts(b"caf\xe9/1.png", small, b"b/1.png", small))
put("folder", "empty-class", parts(b"a/1.png", small, b"b/1.txt", b""))
put("folder", "promise", parts(b"a/1.png", png(1, 1, 8, 6, b"\0\0\0\0\0", size=(8192, 8192))))

# ---- what a training leaves behind ----

def floats(shapes, metadata):
    """A safetensors file: small numbers under these names."""
    entries, data = {"__metadata__": metadata}, b""
    for name, shape in shapes.items():
        n = 1
        for length in shape:
            n *= length
        entries[name] = entry("F32", shape, len(data), len(data) + 4 * n)
        data += struct.pack(f"<{n}f", *[((k * 37) % 19 - 9) / 32 for k in range(n)])
    return safetensors(entries, data)


def checkpoint(step, metadata, good=True):
    values, text = struct.pack("<3f", 1, -2, 0.5), {"checkpoint.format": "capsfw-checkpoint-1",
                                                    "checkpoint.step": step, **metadata}
    crc = 0
    for part in [x.encode() for key in sorted(text) for x in (key, text[key])] + [b"model.w f32 [3]"]:
        crc = zlib.crc32(struct.pack("<Q", len(part)) + part, crc)
    text["checkpoint.crc32"] = "%08x" % (zlib.crc32(values, crc) if good else 0)
    return safetensors({"__metadata__": text, "model.w": entry("F32", [3], 0, 12)}, values)


put("checkpoint", "good", checkpoint("3", {"log": "{}\n{}\n", "flags": "--lr 0.1"}))
put("checkpoint", "bare", checkpoint("3", {}))
put("checkpoint", "zeros", checkpoint("0003", {}))
put("checkpoint", "sum", checkpoint("3", {}, False))
for name, step in {"other": "4", "negative": "-3", "word": "three", "huge": "9" * 40, "none": ""}.items():
    put("checkpoint", "step-" + name, checkpoint(step, {}))
put("checkpoint", "weights", safetensors({"w": entry("F32", [1], 0, 4)}, bytes(4)))

DYNAMIC = "dynamic:iterations=3,squash_c=1,detach=false,leaky=false,agreement=dot,prior=false,activation=false"
capsnet = {"capsules": [[2, 2]], "conv_init": "", "convs": [[2, 3, 2, False, 0, 1]], "decoder": 0,
           "decoder_hidden": [5], "frobenius": False, "image": [1, 8, 8], "inner_dim": 0, "keep": 1.0,
           "noise_class": False, "primary": [2, 2, 2, 1], "primary_kind": 0, "primary_squash_c": 1.0,
           "routing": DYNAMIC, "vote_bias": False, "votes": 0}
CLASSIFIERS = {
    "capsnet": ("capsnet", capsnet, {
        "conv1.weight": [2, 1, 3, 3], "conv1.bias": [2], "primary.conv.weight": [4, 2, 2, 2],
        "primary.conv.bias": [4], "digits.votes.weight": [8, 2, 2, 2]}),
    "depthwise": ("capsnet", {
        **capsnet, "capsules": [[2, 2], [2, 3]], "convs": [[2, 3, 2, True, 1, 1]], "decoder": 1,
        "decoder_hidden": [3], "primary": [1, 2, 0, 1], "primary_kind": 1,
        "routing": "self-attention:squash=exp,squash_c=1,prior=true"}, {
        "conv1.weight": [2, 1, 3, 3], "conv1.bias": [2], "norm1.weight": [2], "norm1.bias": [2],
        "se1.fc1.weight": [2, 2], "se1.fc1.bias": [2], "se1.fc2.weight": [2, 2], "se1.fc2.bias": [2],
        "primary.weight": [2, 1, 3, 3], "primary.bias": [2], "capsules1.votes.weight": [1, 2, 2, 2],
        "capsules1.routing.prior": [1, 2], "capsules2.votes.weight": [2, 2, 3, 2],
        "capsules2.routing.prior": [2, 2], "decoder.fc1.weight": [3, 6], "decoder.fc1.bias": [3],
        "decoder.fc2.weight": [64, 3], "decoder.fc2.bias": [64], "norm1.running_mean": [2],
        "norm1.running_var": [2]}),
    "convnet": ("convnet", {"classes": 2, "conv_init": "", "convs": [[2, 3, 1, False, 0, 1]],
                            "global_pool": False, "hidden": 3, "image": [1, 6, 6]}, {
        "conv1.weight": [2, 1, 3, 3], "conv1.bias": [2], "hidden.weight": [3, 32], "hidden.bias": [3],
        "classes.weight": [2, 3], "classes.bias": [2]}),
    "mlp": ("mlp", {"activation": "relu", "classes": 2, "hidden": [2], "image": [1, 2, 2]}, {
        "mlp.weight1": [2, 4], "mlp.bias1": [2], "mlp.weight2": [2, 2], "mlp.bias2": [2]}),
    "matrix": ("matrix-capsnet", {
        "capsules": [[2, 2, 1, 0]], "classes": 2, "competition": 0, "conv": [2, 3, 2, False, 0, 1],
        "coordinate_places": [], "coordinates": True, "image": [1, 8, 8], "pose": 2, "primary_types": 2,
        "routing": "em:iterations=3,lambda=0.01,lambda_base=0.95,lambda_scale=1,lambdas=,"
                   "data_per_parent=100,variant=hinton,eps_var=1e-06,detach=false"}, {
        "conv.weight": [2, 1, 3, 3], "conv.bias": [2], "primary.pose.weight": [8, 2, 1, 1],
        "primary.pose.bias": [8], "primary.activation.weight": [2, 2, 1, 1],
        "primary.activation.bias": [2], "capsules1.weight": [8, 2, 2, 2], "capsules1.beta_a": [2],
        "capsules1.beta_u": [2], "classes.weight": [2, 2, 2, 2], "classes.beta_a": [2],
        "classes.beta_u": [2]}),
}


def classifier(kind, options, shapes, **more):
    text = options if isinstance(options, str) else json.dumps(options)
    return floats(shapes, {"format": "capsfw-classifier-1", "kind": kind, "options": text,
                           "class_names": '["a","b"]', "note": "", **more})


for name, (kind, options, shapes) in CLASSIFIERS.items():
    put("classifier", name, classifier(kind, options, shapes, border="0.250"))
kind, options, shapes = CLASSIFIERS["mlp"]
conv_options, conv_shapes = CLASSIFIERS["convnet"][1:]
put("classifier", "names", classifier(kind, options, shapes, class_names='["a","\\u001b[2J"]'))
put("classifier", "note", classifier(kind, options, shapes, note="\x1b[2J"))
put("classifier", "deep", classifier(kind, "[" * 5000, shapes))
put("classifier", "unexpected", classifier(kind, options, {f"w{i}": [0] for i in range(100)}))
put("classifier", "promise-image", classifier(kind, {**options, "image": [1, 1 << 30, 1 << 30]}, shapes))
put("classifier", "promise-list", classifier(kind, {**options, "image": [1 << 30] * 40}, shapes))
put("classifier", "promise-1e300", classifier(kind, {**options, "classes": 1e300}, shapes))
put("classifier", "promise-hidden", classifier(kind, {**options, "hidden": [1 << 30]}, shapes))
put("classifier", "promise-channels", classifier("convnet", {
    **conv_options, "convs": [[1 << 20, 31, 1, False, 0, 1]]}, conv_shapes))
put("classifier", "promise-negative", classifier("convnet", {
    **conv_options, "convs": [[-1, 3, 1, False, 0, 1]], "hidden": -5}, conv_shapes))
put("classifier", "promise-iterations", classifier("capsnet", {
    **capsnet, "routing": DYNAMIC.replace("=3", "=2000000000")}, CLASSIFIERS["capsnet"][2]))

WORDS = b"<pad>\n<unk>\nthe\nfilm\n"
TEXT_MODELS = {
    "capsules": ("text-capsules", {
        "dim": 2, "filters": 2, "keep": 1.0, "length": 4, "ngrams": [1, 2], "noise_class": False,
        "routing": DYNAMIC, "shared_classes": True, "shared_windows": True, "squash_c": 1.0, "stride": 1,
        "types": 1, "window": 1, "window_types": 1, "words": 0}, {
        f"grams{n}.{name}": shape for n in (1, 2) for name, shape in {
            "conv.weight": [2, n, 2], "conv.bias": [2], "primary.weight": [2, 2], "primary.bias": [2],
            "windows.patch.votes.weight": [1, 2, 2], "classes.votes.weight": [2, 2, 2]}.items()}),
    "cnn": ("text-cnn", {"dropout": 0.5, "filters": 2, "ngrams": [1, 2], "words": 0}, {
        "conv1.weight": [2, 1, 2], "conv1.bias": [2], "conv2.weight": [2, 2, 2], "conv2.bias": [2],
        "logits.weight": [2, 4], "logits.bias": [2]}),
    "rnn": ("text-rnn", {"bidirectional": True, "cell": 0, "dropout": 0.5, "hidden": 2, "pool": 0,
                         "words": 0}, {
        **{f"states.{way}.{name}": shape for way in ("forward", "backward") for name, shape in {
            "weight_ih": [8, 2], "weight_hh": [8, 2], "bias_ih": [8], "bias_hh": [8]}.items()},
        "logits.weight": [2, 4], "logits.bias": [2]}),
}


def text_model(kind, options, shapes, words=WORDS, **more):
    about = {"class_names": ["a", "b"], "kind": kind, "options": options, "table": [4, 2],
             "tokenizer": [True, True, True], **more}
    return parts(floats({**shapes, "words.weight": [4, 2]},
                        {"format": "capsfw-text-1", "about": json.dumps(about)}), words)


for name, model in TEXT_MODELS.items():
    put("textmodel", name, text_model(*model))
kind, options, shapes = TEXT_MODELS["rnn"]
put("textmodel", "vocabulary", text_model(kind, options, shapes, words=WORDS + b"one-more\n"))
put("textmodel", "names", text_model(kind, options, shapes, class_names=["a", "\x1b[2J"]))
put("textmodel", "promise-hidden", text_model(kind, {**options, "hidden": 1 << 30}, shapes))
put("textmodel", "promise-table", text_model(kind, options, shapes, table=[4, 1 << 30]))
put("textmodel", "promise-classes", text_model(kind, options, shapes, class_names=["x"] * 3000))
