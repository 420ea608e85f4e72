// Checkpoints: the newest whole one is found, whatever happened to the others.

#include <sys/resource.h>

#include <cerrno>
#include <exception>

#include <doctest/doctest.h>

#include <capsfw/core/allocator.hpp>
#include <capsfw/core/error.hpp>
#include <capsfw/core/random.hpp>
#include <capsfw/data/checkpoint.hpp>
#include <capsfw/data/file.hpp>

#include "apps_support.hpp"

using namespace capsfw;
using namespace apps_test;

namespace {

Checkpoint sample(std::int64_t step) {
  Rng rng(static_cast<std::uint64_t>(step));
  Checkpoint c{.step = step, .state = {}, .metadata = {{"lr", "0.1"}, {"lines", "a\nb\n"}}};
  c.state.set("w", rng.normal({3, 4}, 0, 1));
  c.state.set("n", from_vector<std::int64_t>({step}));
  c.state.set("none", empty({0}, DType::f64));
  return c;
}

std::int64_t step_of(const std::optional<Checkpoint>& c) { return c ? c->step : -1; }

void write(const fs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

}  // namespace

TEST_CASE("checkpoint: what is saved comes back, and the last ones are kept") {
  const Folder temporary;
  CheckpointFolder folder(temporary.path / "a" / "checkpoints", 2);
  CHECK_FALSE(folder.load().has_value());
  CHECK(folder.files().empty());
  for (const std::int64_t step : {0, 7, 20, 1000000}) folder.save(sample(step));
  CHECK(folder.files().size() == 2);
  const auto last = folder.load();
  REQUIRE(last.has_value());
  CHECK(last->step == 1000000);
  const Checkpoint expected = sample(1000000);
  CHECK(last->metadata == expected.metadata);
  REQUIRE(last->state.size() == 3);
  CHECK(last->state.at("w").to_vector<float>() == expected.state.at("w").to_vector<float>());
  CHECK(last->state.at("n").to_vector<std::int64_t>() == std::vector<std::int64_t>{1000000});
  CHECK(last->state.at("none").numel() == 0);

  // A run that went back: its checkpoint is the newest, though its step is not the largest.
  folder.save(sample(21));
  CHECK(step_of(folder.load()) == 21);
  // Copies under other names are the user's.
  for (const char* name : {"step-best.safetensors", "step-0000000021-keep.safetensors"}) {
    const fs::path copy = folder.path() / name;
    fs::copy_file(folder.files().back(), copy);
    folder.save(sample(22));
    CHECK(fs::exists(copy));
  }
  CHECK(step_of(folder.load()) == 22);
  CHECK_THROWS_AS(CheckpointFolder(temporary.path, 0), ValueError);
  CHECK_THROWS_AS(folder.save(sample(-1)), ValueError);
  CHECK_THROWS_AS(folder.save(sample(10'000'000'000)), ValueError);  // eleven digits
}

TEST_CASE("checkpoint: one flipped bit, one lost byte, and the one before is taken, with a note") {
  const Folder temporary;
  CheckpointFolder folder(temporary.path, 3);
  folder.save(sample(1));
  folder.save(sample(2));
  const fs::path newest = folder.files().back();
  const std::string whole = content(newest);
  std::vector<std::string> notes;
  const auto load = [&] {
    notes.clear();
    return step_of(folder.load([&](const std::string& text) { notes.push_back(text); }));
  };
  CHECK(load() == 2);
  CHECK(notes.empty());
  for (std::size_t at = 0; at < whole.size(); at += 7) {
    std::string bad = whole;
    bad[at] = static_cast<char>(bad[at] ^ 0x10);
    write(newest, bad);
    const std::int64_t step = load();
    CHECK_MESSAGE((step == 1 && notes.size() == 1 && contains(notes[0], newest.string())),
                  "byte " << at);
  }
  for (std::size_t size = 0; size < whole.size(); size += 31) {
    write(newest, whole.substr(0, size));
    CHECK(load() == 1);
  }
  write(newest, whole + "x");
  CHECK(load() == 1);
  write(folder.path() / "step-nonsense.safetensors", whole);
  write(folder.path() / "step-0000000099.safetensors", whole);
  CHECK(load() == 1);
  CHECK(contains(notes.at(0), "its name is not that of its step"));
  fs::remove(folder.path() / "step-nonsense.safetensors");
  fs::remove(folder.path() / "step-0000000099.safetensors");
  for (const fs::path& p : folder.files()) write(p, "x");
  CHECK_THROWS_AS(load(), IoError);
}

TEST_CASE("checkpoint: what is no damage is an error, not a reason to take the one before") {
  const Folder temporary;
  CheckpointFolder folder(temporary.path, 3);
  folder.save(sample(1));
  Checkpoint large = sample(2);
  large.state.set("large", zeros({1 << 20}));
  folder.save(large);
  large = {};
  int notes = 0;
  const auto load = [&] { return step_of(folder.load([&](const std::string&) { ++notes; })); };
  set_memory_limit(memory_stats().live + (1 << 20));
  CHECK_THROWS_AS(load(), MemoryError);
  set_memory_limit(0);

  // No free descriptor: neither is the folder empty, which would start the run anew.
  const auto without_descriptors = [](const auto& act) {
    rlimit before{};
    REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
    const rlimit none{0, before.rlim_max};
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &none) == 0);
    std::exception_ptr thrown;
    try {
      act();
    } catch (...) {  // looked at by the caller: sanitizers need a descriptor to check its type
      thrown = std::current_exception();
    }
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &before) == 0);
    if (thrown) std::rethrow_exception(thrown);
  };
  CHECK_THROWS_AS(without_descriptors(load), IoError);
  CHECK_THROWS_AS(without_descriptors([&] { folder.files(); }), IoError);
  CHECK(load() == 2);

  // Files that cannot be opened (a link to itself) and cannot be read (nothing lies at address 0).
  const auto code = [&](const fs::path& target) {
    const fs::path newest = folder.path() / "step-0000000003.safetensors";
    fs::create_symlink(target, newest);
    int got = 0;
    try {
      load();
    } catch (const FileAccessError& e) {
      got = e.code;
      CHECK(contains(e.what(), newest.string()));
      CHECK(contains(e.what(), "Hint: move it away"));
    }
    fs::remove(newest);
    return got;
  };
  CHECK(code("step-0000000003.safetensors") == ELOOP);
  CHECK(code("/proc/self/mem") == EIO);
  CHECK(notes == 0);
  CHECK(code("nothing") == 0);  // removed by somebody else
  CHECK(notes == 1);
}

TEST_CASE("checkpoint: what a killed process left goes with the next one, bad folders are errors") {
  const Folder temporary;
  CheckpointFolder folder(temporary.path / "c", 2);
  folder.save(sample(1));
  write(temporary.path / "c" / ".capsfw-123-0.tmp", "half a checkpoint");
  write(temporary.path / "c" / "notes.txt", "mine");
  CHECK(step_of(folder.load()) == 1);
  folder.save(sample(2));
  CHECK_FALSE(fs::exists(temporary.path / "c" / ".capsfw-123-0.tmp"));
  CHECK(fs::exists(temporary.path / "c" / "notes.txt"));
  write(temporary.path / "file", "x");
  CHECK_THROWS_AS(CheckpointFolder(temporary.path / "file" / "c").save(sample(1)), IoError);
  CHECK_THROWS_AS(CheckpointFolder("/proc/none").save(sample(1)), IoError);
}

TEST_CASE("checkpoint: fingerprints see every pixel, label and word") {
  const auto set = [](std::uint8_t pixel, std::int64_t label) {
    return ImageSet({1, 2, 2}, {1, 2, 3, pixel}, {label}, {"a", "b"});
  };
  CHECK(fingerprint(set(4, 0)) == fingerprint(set(4, 0)));
  CHECK(fingerprint(set(4, 0)) != fingerprint(set(5, 0)));
  CHECK(fingerprint(set(4, 0)) != fingerprint(set(4, 1)));
  CHECK(contains(fingerprint(set(4, 0)), "1 images [1, 2, 2], CRC-32 "));
  const auto text = [](std::vector<std::vector<std::int64_t>> ids) {
    return EncodedText{std::move(ids), {0, 1}};
  };
  CHECK(fingerprint(text({{1, 2}, {3}})) != fingerprint(text({{1}, {2, 3}})));
  CHECK(fingerprint(text({{1, 2}, {3}})) == fingerprint(text({{1, 2}, {3}})));
}
