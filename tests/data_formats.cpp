// CIFAR, smallNORB, and image sets from arrays: small files in the real formats, whole and damaged.

#include <array>
#include <cmath>

#include <doctest/doctest.h>
#include <capsfw/data/cifar.hpp>
#include <capsfw/data/csv.hpp>
#include <capsfw/data/image_arrays.hpp>
#include <capsfw/data/npy.hpp>
#include <capsfw/data/small_norb.hpp>

#include "data_common.hpp"

using namespace capsfw;
using namespace data_test;

namespace {

namespace fs = std::filesystem;

/// A record of CIFAR: labels, then planes of one value each.
Bytes record(const Bytes& labels, std::uint8_t red, std::uint8_t green, std::uint8_t blue) {
  Bytes out = labels;
  for (const std::uint8_t v : {red, green, blue}) out.insert(out.end(), 1024, v);
  return out;
}

Bytes norb(std::uint32_t magic, const std::vector<std::int32_t>& lengths, const Bytes& data) {
  Bytes out = little32(magic);
  append(out, little32(static_cast<std::uint32_t>(lengths.size())));
  for (std::size_t i = 0; i < std::max<std::size_t>(lengths.size(), 3); ++i)
    append(out, little32(i < lengths.size() ? static_cast<std::uint32_t>(lengths[i]) : 1));
  append(out, data);
  return out;
}

constexpr std::uint32_t kByte = 0x1E3D4C55, kInt = 0x1E3D4C54;

Bytes ints(const std::vector<std::int32_t>& values) {
  Bytes out;
  for (const std::int32_t v : values) append(out, little32(static_cast<std::uint32_t>(v)));
  return out;
}

/// dat, cat and info of pairs of 1 x 2 pixels: pair i is (10 i, 10 i + 1), (10 i + 2, 10 i + 3).
void write_norb(const fs::path& folder,
                bool train,
                const std::vector<std::int32_t>& cat,
                const std::vector<std::int32_t>& info) {
  const std::string start = std::string("smallnorb-5x") + (train ? "46789" : "01235") +
                            "x9x18x6x2x96x96-" + (train ? "training-" : "testing-");
  const auto n = static_cast<std::int32_t>(cat.size());
  Bytes pixels;
  for (std::int32_t i = 0; i < n; ++i)
    for (int k = 0; k < 4; ++k) pixels.push_back(static_cast<std::uint8_t>(10 * i + k));
  fs::create_directories(folder);
  write_bytes(folder / (start + "dat.mat.gz"), gzip(norb(kByte, {n, 2, 1, 2}, pixels)));
  write_bytes(folder / (start + "cat.mat"), norb(kInt, {n}, ints(cat)));
  write_bytes(folder / (start + "info.mat.gz"), gzip(norb(kInt, {n, 4}, ints(info))));
}

std::vector<int> first_pixels(const ImageSet& set) {
  std::vector<int> out;
  for (std::int64_t i = 0; i < set.size(); ++i) out.push_back(*set.pixels(i));
  return out;
}

}  // namespace

TEST_CASE("cifar: five batches and a test batch, plain and gzip, with their names") {
  const TempDir dir;
  const Environment root("CAPSFW_DATA_DIR", dir.path().string());
  const fs::path folder = dir / "cifar10";
  fs::create_directories(folder);
  CHECK(contains(message_of<IoError>([] { load_cifar10(Split::train); }), "get-data.sh cifar10"));
  for (std::uint8_t i = 1; i <= 5; ++i) {
    Bytes two = record({i}, i, 0, 0);
    append(two, record({0}, 0, static_cast<std::uint8_t>(100 + i), 7));
    const std::string name = "data_batch_" + std::to_string(i) + ".bin";
    write_bytes(folder / (i == 3 ? name + ".gz" : name), i == 3 ? gzip(two) : two);
  }
  write_bytes(folder / "test_batch.bin", record({9}, 1, 2, 3));
  const ImageSet train = load_cifar10(Split::train), test = load_cifar10(Split::test);
  CHECK(train.image_shape() == Shape{3, 32, 32});
  CHECK(first_pixels(train) == std::vector<int>{1, 0, 2, 0, 3, 0, 4, 0, 5, 0});
  CHECK(train.label(4) == 3);
  CHECK(train.pixels(5)[1024] == 103);
  CHECK(train.pixels(5)[2048] == 7);
  CHECK(test.class_names()[9] == "truck");
  CHECK(test.label(0) == 9);
  const std::string names = "plane\ncar\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\nlorry\n\n";
  write_bytes(folder / "batches.meta.txt", Bytes(names.begin(), names.end()));
  CHECK(load_cifar10(Split::test).class_names()[9] == "lorry");
  write_bytes(folder / "batches.meta.txt", {'a', '\n'});
  CHECK(contains(message_of<IoError>([] { load_cifar10(Split::test); }), "must name 10 classes"));
  fs::remove(folder / "batches.meta.txt");
  write_bytes(folder / "batches.meta.txt.gz", gzip(Bytes(names.begin(), names.end())));
  CHECK(contains(message_of<IoError>([] { load_cifar10(Split::test); }), "must be unpacked"));
}

TEST_CASE("cifar: 100 classes, of which the second label byte tells") {
  const TempDir dir;
  const Environment root("CAPSFW_DATA_DIR", dir.path().string());
  fs::create_directories(dir / "cifar100");
  write_bytes(dir / "cifar100/train.bin", record({19, 99}, 5, 6, 7));
  write_bytes(dir / "cifar100/test.bin", record({3, 42}, 8, 6, 7));
  CHECK(load_cifar100(Split::train).label(0) == 99);
  CHECK(load_cifar100(Split::test).label(0) == 42);
  CHECK(load_cifar100(Split::test).class_names()[42] == "42");
  CHECK(*load_cifar100(Split::test).pixels(0) == 8);
}

TEST_CASE("cifar: damaged files are named with the rule") {
  const TempDir dir;
  const fs::path path = dir / "x.bin";
  const Bytes good = record({1}, 1, 2, 3);
  const auto complaint = [&](const Bytes& bytes) {
    write_bytes(path, bytes);
    const std::string message = message_of<IoError>([&] {
      load_cifar_files({path}, 1, {"a", "b"});
    });
    CHECK(contains(message, path.string()));
    return message;
  };
  CHECK(contains(complaint(prefix(good, 3000)), "whole number of records of 3073 bytes"));
  CHECK(contains(complaint({}), "at least one; got 0"));
  Bytes longer = good;
  longer.push_back(0);
  CHECK(contains(complaint(longer), "got 3074"));
  CHECK(contains(complaint(record({2}, 1, 2, 3)), "labels must lie in [0, 2); got 2 in record 0"));
  CHECK(contains(complaint(prefix(gzip(good), 100)), "they end early"));
  CHECK_THROWS_AS(load_cifar_files({}, 1, {"a"}), ValueError);
  CHECK_THROWS_AS(load_cifar_files({path}, 0, {"a"}), ValueError);
}

TEST_CASE("smallNORB: matrices of every type, both byte orders, gzip") {
  const TempDir dir;
  const fs::path path = dir / "x.mat";
  const auto read = [&](const Bytes& bytes) {
    write_bytes(path, bytes);
    return read_norb_matrix(path);
  };
  const NorbMatrix bytes = read(norb(kByte, {2, 1, 1, 2}, {1, 2, 3, 4}));
  CHECK(bytes.type == NorbType::u8);
  CHECK(bytes.shape == Shape{2, 1, 1, 2});
  CHECK(bytes.bytes == Bytes{1, 2, 3, 4});
  CHECK(read(gzip(norb(kInt, {2}, ints({-1, 300})))).bytes == ints({-1, 300}));
  CHECK(read(norb(kInt, {2}, ints({-1, 300}))).shape == Shape{2});  // two more lengths are skipped
  CHECK(read(norb(0x1E3D4C56, {3}, {1, 0, 2, 0, 3, 0})).type == NorbType::i16);
  CHECK(read(norb(0x1E3D4C51, {1, 1}, {0, 0, 0x80, 0x3f})).type == NorbType::f32);
  CHECK(read(norb(0x1E3D4C53, {1}, Bytes(8))).type == NorbType::f64);
  CHECK(read(norb(kInt, {0}, {})).shape == Shape{0});
  CHECK(read(norb(kByte, {}, {9})).shape.rank() == 0);
  Bytes big = big32(kInt);
  for (const std::uint32_t v : {1u, 2u, 1u, 1u, 7u, 300u}) append(big, big32(v));
  CHECK(read(big).bytes == ints({7, 300}));
}

TEST_CASE("smallNORB: damaged matrices are named with the rule") {
  const TempDir dir;
  const fs::path path = dir / "x.mat";
  const auto complaint = [&](const Bytes& bytes) {
    write_bytes(path, bytes);
    const std::string message = message_of<IoError>([&] { read_norb_matrix(path); });
    CHECK(contains(message, path.string()));
    return message;
  };
  const Bytes good = norb(kInt, {2}, ints({1, 2}));
  for (std::size_t n = 0; n < good.size(); ++n) complaint(prefix(good, n));
  CHECK(contains(complaint(prefix(good, 22)), "8 bytes must follow the header"));
  CHECK(contains(complaint(prefix(good, 3)), "the magic number"));
  Bytes longer = good;
  longer.push_back(0);
  CHECK(contains(complaint(longer), "nothing may follow"));
  CHECK(contains(complaint(norb(0x1E3D4C52, {1}, {1})), "the magic number must be"));
  CHECK(contains(complaint(norb(kInt, {-2}, {})), "must not be negative; got -2"));
  CHECK(contains(complaint(norb(kInt, {1, 1, 1, 1, 1, 1, 1, 1, 1}, ints({1}))), "the rank must"));
  const std::int32_t most = 0x7fffffff;
  // Nothing of what a header promises is allocated before it is there.
  CHECK(contains(complaint(norb(kByte, {most, 1}, {})), "2147483647 bytes must follow"));
  CHECK(contains(complaint(norb(kByte, {most, most, most, most}, {})), "must fit into"));
  CHECK(contains(complaint(norb(kByte, {0, most, most, most}, {})), "must fit into"));
}

TEST_CASE("smallNORB: stereo pairs, single cameras, viewpoints in degrees") {
  const TempDir dir;
  const Environment root("CAPSFW_DATA_DIR", dir.path().string());
  CHECK(contains(message_of<IoError>([] { load_small_norb(Split::train); }), "smallnorb"));
  write_norb(dir / "smallnorb", true, {4, 0}, {9, 8, 34, 5, 0, 0, 0, 0});
  write_norb(dir / "smallnorb", false, {2}, {3, 1, 2, 4});
  const SmallNorb train = load_small_norb(Split::train);
  CHECK(train.images.image_shape() == Shape{2, 1, 2});
  CHECK(Bytes(train.images.pixels(1), train.images.pixels(1) + 4) == Bytes{10, 11, 12, 13});
  CHECK(train.images.class_names()[static_cast<std::size_t>(train.images.label(0))] == "car");
  CHECK(train.views[0] == Viewpoint{9, 70, 340, 5});
  CHECK(train.views[1] == Viewpoint{0, 30, 0, 0});
  const SmallNorb left = load_small_norb(Split::train, Cameras::left),
                  right = load_small_norb(Split::train, Cameras::right);
  CHECK(left.images.image_shape() == Shape{1, 1, 2});
  CHECK(first_pixels(left.images) == std::vector<int>{0, 10});
  CHECK(first_pixels(right.images) == std::vector<int>{2, 12});
  CHECK(right.images.pixels(1)[1] == 13);
  CHECK(load_small_norb(Split::test).views[0] == Viewpoint{3, 35, 20, 4});
}

TEST_CASE("smallNORB: viewpoints that were never seen, by azimuth and by elevation") {
  const auto set = [](int first) {  // all 9 x 18 viewpoints, one image each
    SmallNorb s;
    Bytes pixels;
    std::vector<std::int64_t> labels;
    for (int e = 30; e <= 70; e += 5)
      for (int a = 0; a < 360; a += 20) {
        s.views.push_back({first, e, a, 0});
        pixels.push_back(static_cast<std::uint8_t>(first));
        labels.push_back(e * 1000 + a);
      }
    s.images = ImageSet({1, 1, 1}, pixels, labels, std::vector<std::string>(80000));
    return s;
  };
  const SmallNorb train = set(1), test = set(2);
  const auto labels = [](const ImageSet& images) {
    return images.labels().to_vector<std::int64_t>();
  };
  const ViewpointSplit azimuth = novel_viewpoints(train, test, NovelViewpoints::azimuth);
  CHECK(azimuth.train.size() == 54);  // a third of the training part
  CHECK(azimuth.familiar.size() == 54);
  CHECK(azimuth.novel.size() == 108);
  for (const std::int64_t v : labels(azimuth.train)) {
    const std::int64_t a = v % 1000;
    const bool known = a == 300 || a == 320 || a == 340 || a == 0 || a == 20 || a == 40;
    CHECK(known);
  }
  for (const std::int64_t v : labels(azimuth.novel)) {
    CHECK(v % 1000 >= 60);
    CHECK(v % 1000 <= 280);
  }
  CHECK(*azimuth.train.pixels(0) == 1);
  CHECK(*azimuth.familiar.pixels(0) == 2);
  const ViewpointSplit elevation = novel_viewpoints(train, test, NovelViewpoints::elevation);
  CHECK(elevation.train.size() == 54);
  CHECK(elevation.novel.size() == 108);
  for (const std::int64_t v : labels(elevation.train)) CHECK(v / 1000 <= 40);
  for (const std::int64_t v : labels(elevation.novel)) CHECK(v / 1000 >= 45);
  SmallNorb odd = train;
  odd.views.pop_back();
  CHECK_THROWS_AS(novel_viewpoints(odd, test, NovelViewpoints::azimuth), ValueError);
}

TEST_CASE("smallNORB: files that do not fit each other") {
  const TempDir dir;
  const fs::path dat = dir / "dat", cat = dir / "cat", info = dir / "info";
  const auto complaint = [&](const Bytes& d, const Bytes& c, const Bytes& i) {
    write_bytes(dat, d);
    write_bytes(cat, c);
    write_bytes(info, i);
    return message_of<IoError>([&] { load_norb_files(dat, cat, info); });
  };
  const Bytes d = norb(kByte, {1, 2, 1, 1}, {1, 2}), c = norb(kInt, {1}, ints({0})),
              i = norb(kInt, {1, 4}, ints({0, 0, 0, 0}));
  CHECK(complaint(d, c, i).empty());
  CHECK(contains(complaint(c, c, i), "must be u8 [N, 2, H, W]"));
  CHECK(contains(complaint(norb(kByte, {1, 3, 1, 1}, {1, 2, 3}), c, i), "must hold two images"));
  CHECK(contains(complaint(d, norb(kInt, {2}, ints({0, 1})), i), "equal counts; got 1, 2 and 1"));
  CHECK(contains(complaint(d, norb(kInt, {1}, ints({5})), i), "must lie in 0..4; got 5"));
  CHECK(contains(complaint(d, c, norb(kInt, {1, 4}, ints({0, 9, 0, 0}))), "elevation must lie"));
  CHECK(contains(complaint(d, c, norb(kInt, {1, 4}, ints({0, 0, 0, -1}))), "lighting must lie"));
  CHECK(contains(complaint(d, c, norb(kInt, {1, 3}, ints({0, 0, 0}))), "four numbers"));
  CHECK(contains(complaint(norb(kByte, {0, 2, 1, 1}, {}), norb(kInt, {0}, {}), i), "not empty"));
}

TEST_CASE("image_set: layouts, bytes and numbers in [0, 1]") {
  const Tensor labels = from_vector<std::int64_t>({1, 0});
  const auto bytes = [](std::vector<std::int64_t> v, const Shape& s) { return from_vector(v, s); };
  const ImageSet grey = image_set(bytes({0, 255, 1, 2}, {2, 1, 2}), labels);
  CHECK(grey.image_shape() == Shape{1, 1, 2});
  CHECK(first_pixels(grey) == std::vector<int>{0, 1});
  CHECK(grey.classes() == 2);
  CHECK(image_set(bytes({0, 255, 1, 2}, {2, 2, 1, 1}), labels).image_shape() == Shape{2, 1, 1});
  // Channels last: five rows of one pixel, red, green, blue.
  std::vector<std::int64_t> v;
  for (int i = 0; i < 30; ++i) v.push_back(i);
  const ImageSet last = image_set(bytes(v, {2, 5, 1, 3}), labels, 7);
  CHECK(last.image_shape() == Shape{3, 5, 1});
  CHECK(last.classes() == 7);
  CHECK(Bytes(last.pixels(1), last.pixels(1) + 6) == Bytes{15, 18, 21, 24, 27, 16});
  // Three rows, three columns: channels first is what we take it for.
  CHECK(image_set(zeros({1, 3, 4, 3}), from_vector<std::int64_t>({0})).image_shape() ==
        Shape{3, 4, 3});
  const ImageSet unit = image_set(from_vector<double>({0, 0.5, 1, 0.1}, {2, 1, 1, 2}), labels);
  CHECK(Bytes(unit.pixels(0), unit.pixels(0) + 2) == Bytes{0, 128});
  CHECK(Bytes(unit.pixels(1), unit.pixels(1) + 2) == Bytes{255, 26});
  CHECK(image_set(zeros({2, 1, 1}), from_vector<std::int64_t>({0, 0}, {2, 1})).size() == 2);

  CHECK_THROWS_AS(image_set(bytes({0, 256}, {2, 1, 1}), labels), ValueError);
  CHECK_THROWS_AS(image_set(full({2, 1, 1}, 1.5), labels), ValueError);
  CHECK_THROWS_AS(image_set(full({2, 1, 1}, NAN), labels), ValueError);
  CHECK_THROWS_AS(image_set(zeros({2, 2}), labels), ShapeError);
  CHECK_THROWS_AS(image_set(zeros({3, 1, 1}), labels), ShapeError);
  CHECK_THROWS_AS(image_set(zeros({0, 1, 1}), zeros({0}, DType::i64)), ShapeError);
  CHECK_THROWS_AS(image_set(zeros({2, 1, 1}), zeros({2})), DTypeError);
  CHECK_THROWS_AS(image_set(zeros({2, 1, 1}, DType::b8), labels), DTypeError);
  CHECK_THROWS_AS(image_set(zeros({2, 1, 1}), from_vector<std::int64_t>({0, -1})), ValueError);
  CHECK_THROWS_AS(image_set(zeros({2, 1, 1}), from_vector<std::int64_t>({0, 65536})), ValueError);
  CHECK_THROWS_AS(image_set(zeros({2, 1, 1}), labels, 1), ValueError);
}

TEST_CASE("npz: one array with a share for the test, or parts under the usual names") {
  const TempDir dir;
  const fs::path path = dir / "x.npz";
  std::vector<std::int64_t> v, labels;
  for (int i = 0; i < 20; ++i) {
    v.push_back(i);
    labels.push_back(i / 10);
  }
  StateDict one;
  one.set("images", from_vector(v, {20, 1, 1}));
  one.set("labels", from_vector(labels));
  save_npz(path, one);
  const ImageSet train = load_npz_images(path, Split::train),
                 test = load_npz_images(path, Split::test);
  CHECK(train.size() == 16);
  CHECK(test.size() == 4);
  CHECK(test.label(1) == 0);
  CHECK(test.label(2) == 1);
  for (const auto& names :
       {std::array{"train_images", "train_labels", "test_images", "test_labels"},
        std::array{"x_train", "y_train", "x_test", "y_test"}}) {
    StateDict parts;
    parts.set(names[0], from_vector(v, {20, 1, 1}));
    parts.set(names[1], from_vector(labels));
    parts.set(names[2], from_vector<std::int64_t>({77}, {1, 1, 1}));
    parts.set(names[3], from_vector<std::int64_t>({4}, {1, 1}));
    save_npz(path, parts);
    CHECK(load_npz_images(path, Split::train).size() == 20);
    CHECK(load_npz_images(path, Split::train).classes() == 5);
    CHECK(first_pixels(load_npz_images(path, Split::test)) == std::vector<int>{77});
    CHECK(load_npz_images(path, Split::test).classes() == 5);
  }
  const auto complaint = [&](const StateDict& arrays) {
    save_npz(path, arrays);
    const std::string message = message_of<IoError>([&] { load_npz_images(path, Split::train); });
    CHECK(contains(message, path.string()));
    return message;
  };
  StateDict bad;
  bad.set("images", zeros({2, 1, 1}));
  CHECK(contains(complaint(bad), "must hold the arrays"));
  bad.set("labels", zeros({3}, DType::i64));
  CHECK(contains(complaint(bad), "2 images need as many labels"));
  write_bytes(path, {'P', 'K'});
  CHECK_THROWS_AS(load_npz_images(path, Split::train), IoError);
}

TEST_CASE("csv: a label and pixels on each line") {
  const TempDir dir;
  const fs::path path = dir / "x.csv";
  const auto write = [&](const std::string& text) {
    write_bytes(path, Bytes(text.begin(), text.end()));
  };
  write("a,label,b\n1,0,2\n3,0,4\n5,1,255\n7,1,8\n");
  const ImageSet train = load_csv_images(path, {1, 1, 2}, Split::train, {.test_share = 0.5});
  const ImageSet test = load_csv_images(path, {1, 2, 1}, Split::test, {.test_share = 0.5});
  CHECK(train.size() == 2);
  CHECK(test.image_shape() == Shape{1, 2, 1});
  CHECK(test.labels().to_vector<std::int64_t>() == std::vector<std::int64_t>{0, 1});
  CHECK(train.pixels(0)[1] == *train.pixels(0) + 1);
  write("1,9\n0,8\n1,7\n0,6\n");
  CHECK(load_csv_images(path, {1, 1, 1}, Split::train, {.test_share = 0.5}).size() == 2);
  const auto complaint = [&](const std::string& text) {
    write(text);
    const std::string message = message_of<IoError>([&] {
      load_csv_images(path, {1, 1, 2}, Split::train);
    });
    CHECK(contains(message, path.string()));
    return message;
  };
  CHECK(contains(complaint("0,1\n"), "need a label and 2 values on each line; got 2 columns"));
  CHECK(contains(complaint("0,1,256\n"), "row 1, column 3: must be a whole number in [0, 256)"));
  CHECK(contains(complaint("0,1,2\n0,0.5,1\n"), "row 2, column 2"));
  CHECK(contains(complaint("-1,1,2\n"), "row 1, column 1"));
  CHECK(contains(complaint("0,1,nan\n"), "column 3"));
  CHECK(contains(complaint("0,1,x\n"), "column 3: must be a number"));
  CHECK_THROWS_AS(load_csv_images(path, {2, 2}, Split::train), ShapeError);
}

TEST_CASE("formats: whatever is flipped in a file, the answer is a set or an IoError") {
  const TempDir dir;
  const fs::path path = dir / "x", dat = dir / "dat", cat = dir / "cat", info = dir / "info";
  Rng rng(11);
  const auto damaged = [&](const Bytes& bytes) {
    return flipped(bytes,
                   static_cast<std::size_t>(rng.below(static_cast<std::int64_t>(bytes.size()))),
                   static_cast<std::uint8_t>(1 + rng.below(255)));
  };
  int refused = 0, taken = 0;
  const auto survives = [&](const std::function<void()>& f) {
    try {
      f();
      ++taken;
    } catch (const IoError&) {
      ++refused;
    }
  };
  const Bytes d = norb(kByte, {2, 2, 1, 2}, Bytes(8, 7)), c = norb(kInt, {2}, ints({0, 4})),
              i = norb(kInt, {2, 4}, ints({1, 2, 4, 5, 9, 8, 34, 0}));
  StateDict arrays;
  arrays.set("images", from_vector<std::int64_t>({0, 1, 2, 255}, {4, 1, 1}));
  arrays.set("labels", from_vector<std::int64_t>({0, 1, 0, 1}));
  save_npz(path, arrays);
  const Bytes npz = read_bytes(path), packed = gzip(c), batch = record({1}, 1, 2, 3);
  for (int round = 0; round < 300; ++round) {
    write_bytes(dat, round % 3 == 0 ? damaged(d) : d);
    write_bytes(cat, round % 3 == 1 ? damaged(round % 2 == 0 ? c : packed) : c);
    write_bytes(info, round % 3 == 2 ? damaged(i) : i);
    survives([&] { load_norb_files(dat, cat, info); });
    write_bytes(path, damaged(npz));
    survives([&] { load_npz_images(path, Split::train, {.test_share = 0.5}); });
    write_bytes(path, damaged(batch));
    survives([&] { load_cifar_files({path}, 1, {"a", "b", "c"}); });
  }
  CHECK(refused > 100);
  CHECK(taken > 100);
}
