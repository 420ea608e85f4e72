#include <doctest/doctest.h>

#include "data_common.hpp"

using namespace capsfw;
using namespace data_test;

TEST_CASE("atomic file: without commit nothing remains, the old file stays") {
  const TempDir dir;
  write_bytes(dir / "a", {7});
  {
    AtomicFile file(dir / "a");
    file.write("half", 4);
    CHECK(dir.names().size() == 2);
  }
  CHECK(dir.names() == std::vector<std::string>{"a"});
  CHECK(read_bytes(dir / "a") == Bytes{7});
  AtomicFile file(dir / "a");
  file.write("whole", 5);
  CHECK(read_bytes(dir / "a") == Bytes{7});
  file.commit();
  CHECK(read_bytes(dir / "a").size() == 5);
}

TEST_CASE("atomic file: the next name is another one where killed processes have left theirs") {
  const TempDir dir;
  std::string next;
  {
    const AtomicFile file(dir / "a");
    next = dir.names().at(0);
  }
  const std::size_t end = next.rfind('-') + 1;
  const int counter = std::stoi(next.substr(end));
  for (int k = 1; k <= 3; ++k)
    write_bytes(dir / (next.substr(0, end) + std::to_string(counter + k) + ".tmp"), {7});
  AtomicFile file(dir / "a");
  file.write("whole", 5);
  file.commit();
  CHECK(read_bytes(dir / "a").size() == 5);
  CHECK(dir.names().size() == 4);  // and what it did not make stays
}

TEST_CASE("atomic file: leftovers go, but not what somebody still writes") {
  const TempDir dir;
  AtomicFile file(dir / "a");
  file.write("half", 4);
  write_bytes(dir / ".capsfw-1-0.tmp", {7});
  write_bytes(dir / ".capsfw-notes", {7});
  std::filesystem::create_directory(dir / ".capsfw-folder.tmp");
  AtomicFile::remove_leftovers(dir.path());
  CHECK_FALSE(std::filesystem::exists(dir / ".capsfw-1-0.tmp"));
  CHECK(dir.names().size() == 3);
  file.commit();
  CHECK(read_bytes(dir / "a").size() == 4);
  AtomicFile::remove_leftovers(dir / "nowhere");
}

TEST_CASE("files: the limit of read_file, and paths that are no files") {
  const TempDir dir;
  write_bytes(dir / "a", {1, 2, 3});
  CHECK(read_file(dir / "a", 3) == Bytes{1, 2, 3});
  CHECK_THROWS_AS(read_file(dir / "a", 2), IoError);
  CHECK_THROWS_AS(read_file(dir.path(), 100), IoError);
  CHECK_THROWS_AS(read_file(dir / "b", 100), IoError);
  CHECK_THROWS_AS(read_file("/dev/zero", 100), IoError);
}
