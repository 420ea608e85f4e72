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

TEST_CASE("files: the limit of read_file, and paths that are no files") {
  const TempDir dir;
  write_bytes(dir / "a", {1, 2, 3});
  CHECK(read_file(dir / "a", 3) == Bytes{1, 2, 3});
  CHECK_THROWS_AS(read_file(dir / "a", 2), IoError);
  CHECK_THROWS_AS(read_file(dir.path(), 100), IoError);
  CHECK_THROWS_AS(read_file(dir / "b", 100), IoError);
  CHECK_THROWS_AS(read_file("/dev/zero", 100), IoError);
}
